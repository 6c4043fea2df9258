"""How pages look, and the little that they do: one style sheet, one script."""

SHEET = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1d2126; --soft: #5d6570; --line: #d9dad4; --wash: #f3f3ee;
  --accent: #1b5e9e; --good: #2c6e49; --watch: #a3480a;
  --c0: #1d2126; --c1: #b4470f; --c2: #b8860b; --c3: #2f8a6b; --c4: #2b5fa6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181b; --ink: #e4e4df; --soft: #9aa2ab; --line: #353a40;
    --wash: #1d2125; --accent: #7fb4e8; --good: #7cc79b; --watch: #eda167;
    --c0: #e4e4df; --c1: #ee8f5a; --c2: #d9b24a; --c3: #62c3a0; --c4: #79a9ea;
  }
}
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.2rem clamp(1rem, 4vw, 2.5rem) 3rem; max-width: 76rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
h1, h2, h3, dt, figcaption { text-wrap: balance; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { margin: 0 0 .6rem; font-size: 1.3rem; line-height: 1.3; letter-spacing: -.01em; }
h3 { margin: 1.6rem 0 .4rem; font-size: 1rem; }
section { margin-top: 3rem; scroll-margin-top: 1rem; }
p { margin: .5rem 0; max-width: 44rem; }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.note { color: var(--soft); font-size: .9rem; }
.lead { font-size: 1.1rem; margin: .3rem 0 0; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; margin-top: 1.6rem;
  padding: .6rem 0; border-block: 1px solid var(--line); font-size: .95rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
progress { display: block; width: 100%; height: .4rem; margin: 1.1rem 0 0; border: 0;
  border-radius: 1rem; overflow: hidden; background: var(--line);
  accent-color: var(--accent); appearance: none; }
progress::-webkit-progress-bar { background: var(--line); }
progress::-webkit-progress-value { background: var(--accent); }
progress::-moz-progress-bar { background: var(--accent); }

.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr));
  gap: .9rem 1.6rem; margin: 1.3rem 0 0; }
.facts dt { color: var(--soft); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.2rem; line-height: 1.3; overflow-wrap: anywhere; }

.hints { margin: 0; padding: 0; list-style: none; max-width: 46rem; }
.hints li { padding: .55rem 0 .55rem 1rem; border-left: 3px solid var(--line);
  margin-bottom: .6rem; }
.hints .watch { border-color: var(--watch); }
.hints .good { border-color: var(--good); }
.hints b { font-weight: 600; }

.figures { display: grid; gap: 2rem 2rem; margin-top: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20.5rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; font-size: .95rem; line-height: 1.35; }
figure .note { margin: .25rem 0 0; font-size: .82rem; line-height: 1.4; }
.unit { color: var(--soft); font-weight: 400; }
.chart { display: block; width: 100%; height: auto; margin-top: .35rem;
  overflow: visible; }
.chart text { fill: var(--soft); font-size: 11px; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round;
  stroke-linecap: round; vector-effect: non-scaling-stroke; }
.chart polygon { opacity: .16; }
.chart .label { font-weight: 600; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); }
.c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
.chart polyline { stroke: var(--c); }
.chart polygon, .chart circle, .chart .label { fill: var(--c); }
.chart .dashed { stroke-dasharray: 5 4; }

.frames { list-style: none; margin: 1rem 0 0; padding: 0; }
.frame + .frame { margin-top: 1.6rem; }
.frame > p { margin: 0 0 .4rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; }
.facts + .pair { margin-top: 1.2rem; }
.pair figure { flex: 0 1 auto; }
.pair figcaption { font-weight: 400; color: var(--soft); font-size: .85rem;
  margin-bottom: .25rem; }
img { display: block; max-width: 100%; height: auto; border-radius: 2px; }
img.crisp { image-rendering: pixelated; }
.scrubber { display: flex; align-items: center; gap: .9rem; max-width: 46rem;
  margin: 1rem 0; }
.scrubber input { flex: 1; min-width: 0; height: 2rem; accent-color: var(--accent); }
.scrubber output { min-width: 7.5rem; }

pre { margin: 1.3rem 0 0; padding: .65rem .9rem; overflow-x: auto; font-size: .86rem;
  background: var(--wash); border: 1px solid var(--line); border-radius: 4px; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono",
  monospace; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .32rem 1.4rem .32rem 0; text-align: left; vertical-align: baseline; }
thead th { color: var(--soft); font-weight: 400; font-size: .85rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tbody th { font-weight: 400; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
td.number, th.number { text-align: right; white-space: nowrap; }
td .scroll { max-width: 22rem; margin: 0; }
details { margin: .8rem 0; }
td details { margin: 0; }
summary { cursor: pointer; color: var(--accent); }
.missing { color: var(--soft); }
.whole, data { white-space: nowrap; }
.note + .scroll { margin-top: .2rem; }
@media print { nav, .scrubber { display: none; } section { break-inside: avoid; } }
"""

SCRIPT = """
for (const film of document.querySelectorAll("[data-film]")) {
  const frames = [...film.querySelectorAll(".frame")]
    .sort((a, b) => a.dataset.step - b.dataset.step);
  if (frames.length < 2) continue;
  const list = film.querySelector(".frames");
  frames.forEach((frame) => list.append(frame));
  film.querySelectorAll("details").forEach((older) => older.remove());
  const bar = document.createElement("label");
  const range = document.createElement("input");
  const shown = document.createElement("output");
  bar.className = "scrubber";
  range.type = "range";
  range.min = 0;
  range.max = frames.length - 1;
  range.value = frames.length - 1;
  range.setAttribute("aria-label", "Step of the grid");
  const show = () => {
    frames.forEach((frame, index) => { frame.hidden = index !== Number(range.value); });
    const step = Number(frames[range.value].dataset.step);
    const text = `step ${step.toLocaleString("en")}`;
    shown.textContent = text;
    range.setAttribute("aria-valuetext", text);
  };
  range.addEventListener("input", show);
  bar.append(range, shown);
  list.before(bar);
  show();
}
for (const stamp of document.querySelectorAll("time")) {
  const minutes = Math.round((Date.now() - Date.parse(stamp.dateTime)) / 60000);
  const size = Math.abs(minutes);
  const span = size < 120 ? `${size} min`
    : size < 2880 ? `${Math.round(size / 60)} h`
    : `${Math.round(size / 1440)} days`;
  stamp.textContent += size < 1 ? " (now)" : minutes < 0 ? ` (in ${span})`
    : ` (${span} ago)`;
}
"""
