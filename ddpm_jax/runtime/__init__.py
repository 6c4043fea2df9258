"""This machine and its processes."""

# To be raised when a deliberate change of numerics (kernels, flags, order of sums)
# changes images by more than nothing: image 7 of an archive must not be of another kind
# than image 6. It stands in requests of samples and in manifests of checkpoints.
NUMERICS = 1
