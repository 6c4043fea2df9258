"""A picture to brush on: what is brushed is one PNG, sent with a click."""

import html

import numpy as np

from ddpm_jax.demo import view

SIDE = 320  # pixels of the screen


def canvas(image: np.ndarray, name: str) -> str:
    """Return a picture to brush on, with its tools.

    Args:
        image: as stored, [H, W, C].
        name: of the canvas, unique on the page.
    """
    height, width = image.shape[:2]
    factor = SIDE / max(height, width)
    size = f"width:{round(width * factor)}px;aspect-ratio:{width}/{height};"
    source = view.link(view.png(image))
    name = html.escape(name)
    return (
        f'<canvas id="{name}" class="dj-brush" width="{width}" height="{height}" '
        f'role="img" aria-label="the picture; brush what is to be made anew, or give a '
        f'box below" style="{size}background:url({source}) 0 0/100% 100%"></canvas>'
        f'<div class="dj-tools"><label>Tool <select data-tool>'
        "<option>brush</option><option>box</option><option>erase</option></select>"
        "</label> "
        f'<label>Width <input data-width type="range" min="1" '
        f'max="{max(1, min(height, width) // 2)}" '
        f'value="{max(1, min(height, width) // 8)}"></label> '
        '<button type="button" data-clear>Clear</button></div>'
    )


# Listens on the component, whose content changes with every picture.
ON_LOAD = """
const paint = (canvas, from, to) => {
  const root = canvas.parentElement, pen = canvas.getContext('2d');
  const tool = root.querySelector('[data-tool]').value;
  const wide = Number(root.querySelector('[data-width]').value);
  pen.fillStyle = 'rgba(220, 38, 38, 0.65)';
  if (tool === 'box') {
    const [x, y] = [Math.min(from[0], to[0]), Math.min(from[1], to[1])];
    const w = Math.abs(from[0] - to[0]) + 1, h = Math.abs(from[1] - to[1]) + 1;
    pen.clearRect(x, y, w, h);
    pen.fillRect(x, y, w, h);
    return;
  }
  const steps = Math.max(1, Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]));
  for (let i = 0; i <= steps; i++) {
    const x = Math.round(from[0] + (to[0] - from[0]) * i / steps - (wide - 1) / 2);
    const y = Math.round(from[1] + (to[1] - from[1]) * i / steps - (wide - 1) / 2);
    pen.clearRect(x, y, wide, wide);
    if (tool === 'brush') pen.fillRect(x, y, wide, wide);
  }
};
const place = (canvas, event) => {
  const seen = canvas.getBoundingClientRect();
  const at = (value, start, length, count) =>
    Math.max(0, Math.min(count - 1, Math.floor((value - start) / length * count)));
  return [at(event.clientX, seen.left, seen.width, canvas.width),
          at(event.clientY, seen.top, seen.height, canvas.height)];
};
let last = null, boxed = null;
element.addEventListener('pointerdown', (event) => {
  const canvas = event.target;
  if (canvas.tagName !== 'CANVAS') return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  last = boxed = place(canvas, event);
  paint(canvas, last, last);
});
element.addEventListener('pointermove', (event) => {
  if (!last || event.target.tagName !== 'CANVAS') return;
  const now = place(event.target, event);
  const isBox = element.querySelector('[data-tool]').value === 'box';
  if (!isBox) paint(event.target, last, now);
  last = now;
});
element.addEventListener('pointerup', (event) => {
  const isBox = element.querySelector('[data-tool]')?.value === 'box';
  if (last && isBox && event.target.tagName === 'CANVAS')
    paint(event.target, boxed, place(event.target, event));
  last = boxed = null;
});
element.addEventListener('click', (event) => {
  if (event.target.dataset?.clear === undefined) return;
  const canvas = element.querySelector('canvas');
  canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);
});
"""


def reading(name: str) -> str:
    """Return JavaScript that puts what is brushed in the place of the last input.

    Args:
        name: of the canvas.
    """
    return f"""(...given) => {{
  const canvas = document.getElementById('{name}');
  let address = '';
  if (canvas) {{
    const mask = document.createElement('canvas');
    [mask.width, mask.height] = [canvas.width, canvas.height];
    const pen = mask.getContext('2d');
    const brushed = canvas.getContext('2d').getImageData(0, 0, mask.width, mask.height);
    for (let i = 0; i < brushed.data.length; i += 4) {{
      const value = brushed.data[i + 3] > 0 ? 255 : 0;
      brushed.data.set([value, value, value, 255], i);
    }}
    pen.putImageData(brushed, 0, 0);
    address = mask.toDataURL('image/png');
  }}
  given[given.length - 1] = address;
  return given;
}}"""
