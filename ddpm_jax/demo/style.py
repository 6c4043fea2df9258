"""How the page looks: enough contrast, and the letters of the machine it is on."""

CSS = """
.dj-pictures { display: flex; flex-wrap: wrap; gap: 12px; }
.dj-pictures figure { margin: 0 !important; padding: 0 !important; max-width: 100%; }
.dj-pictures figcaption { font-size: 0.85em; text-align: center; }
.dj-picture { display: inline-block; margin: 0 !important; padding: 0 !important; }
.dj-picture img { image-rendering: pixelated; max-width: 100%; height: auto;
  border: 1px solid #767676; margin: 0 !important; padding: 0 !important; }
.dj-film img { image-rendering: auto; }
.dj-picture:focus-visible { outline: 3px solid #2563eb; outline-offset: 2px; }
.dj-status, .dj-error { margin: 4px 0; }
.dj-error { border-left: 4px solid #b91c1c; padding: 8px 12px; color: #7f1d1d;
  background: #fef2f2; }
.dark .dj-error { color: #fecaca; background: #450a0a; }
.dj-status progress { width: 100%; }
.dj-brush { touch-action: none; image-rendering: pixelated; border: 1px solid #767676;
  max-width: 100%; cursor: crosshair; display: block; }
.dj-tools { display: flex; flex-wrap: wrap; gap: 8px; align-items: center;
  margin: 8px 0; }
.dj-command textarea { font-family: var(--font-mono) !important; font-size: 0.85em;
  word-break: break-all; }
.dj-formula { font-family: ui-serif, Georgia, serif; font-size: 1.1em; }
.dj-chart { max-width: 480px; --soft: var(--body-text-color); --line: #a3a3a3;
  --c0: #1d4ed8; --c1: #b45309; --c2: var(--body-text-color); }
.dark .dj-chart { --c0: #93c5fd; --c1: #fdba74; }
.dj-chart .chart { width: 100%; height: auto; overflow: visible; }
.dj-chart .chart text { fill: var(--soft); font-size: 11px; }
.dj-chart .grid { stroke: var(--line); stroke-width: 1; }
.dj-chart polyline { fill: none; stroke-width: 1.6; stroke: var(--c); }
.dj-chart .label { fill: var(--c); font-weight: 600; }
.dj-chart .dashed { stroke-dasharray: 5 4; }
.dj-chart .c0 { --c: var(--c0); } .dj-chart .c1 { --c: var(--c1); }
.dj-chart .c2 { --c: var(--c2); }
"""


def theme(gr):
    """Return the theme of the page.

    Args:
        gr: the module gradio.
    """
    return gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        input_placeholder_color="*neutral_500",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
    )
