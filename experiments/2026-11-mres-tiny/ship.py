"""Measures how sure a trained model is inside its domain and writes it as a Hugging Face directory.

python experiments/2026-11-mres-tiny/ship.py runs/tiny/checkpoints mres_jax/models/shipped/mres_tiny
"""

import argparse
import dataclasses

from mres_jax.evaluation.calibration import measure_domain
from mres_jax.inference.handle import from_loaded
from mres_jax.models.registry import export_hf, load_model, resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="checkpoints of a run")
    parser.add_argument("target", help="a new directory")
    args = parser.parse_args()
    loaded = load_model(resolve(args.source))
    answerer = from_loaded("mres-tiny", loaded, policy="native").answerer
    domain = measure_domain(answerer, name="mres-tiny")
    print(domain)
    export_hf(dataclasses.replace(loaded, extra=domain.to_facts()), args.target)


if __name__ == "__main__":
    main()
