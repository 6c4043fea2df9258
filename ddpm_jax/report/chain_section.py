"""A run of the 2015 paper on its page: its newest bound and the figures beside it."""

import pathlib

from ddpm_jax.report import cards as cards_lib
from ddpm_jax.report import grids, html

METRIC = "bound"
FIGURE_BYTES = 400_000
TITLES = {
    "terms": "Terms of K by step, K from above, and the rates",
    "chains": "Both chains: data and samples on the left, noise on the right",
    "drift": "Drift of the reverse chain",
    "samples": "Data, samples, and samples before the step that is not learned",
}
FACTS = {
    "null": "L_null, under the prior",
    "gain": "K − L_null",
    "ceiling": "ceiling of K",
    "ceiling_of_this_chain": "ceiling of K with these β and a diagonal f_Σ",
    "log_likelihood_of_the_data": "log-likelihood of the data's own law",
    "gaussian": "Gaussian of full covariance",
    "log_probability": "log p by importance averaging",
    "effective_trajectories": "effective trajectories of these",
}


def element(run_dir, cards: cards_lib.Cards) -> html.Html:
    """Return the newest bound with its figures; nothing where there is none."""
    named = [name for name, c in cards.by_name.items() if c["metric"] == METRIC]
    if not named:
        return html.Html("")
    card = cards.by_name[named[0]]
    unit = card.get("unit") or ""
    rows = [("K", html.measured(card["value"], card.get("standard_error"), unit))]
    for key, label in FACTS.items():
        if isinstance(card.get(key), int | float):
            rows.append((label, html.number(card[key], digits=4)))
    stem = pathlib.Path(named[0]).stem
    figures = []
    for name, title in TITLES.items():
        path = run_dir.evaluation / f"{stem}_{name}.png"
        image = grids.opened(path) if path.exists() else None
        if image is not None:
            encoded = grids.encode(image, path, FIGURE_BYTES)
            figures.append(html.figure(encoded.element(title), title))
    return html.join([html.facts(rows), *figures])
