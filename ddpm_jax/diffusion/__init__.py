"""The mathematics: pure functions of arrays, ignorant of networks and files."""
