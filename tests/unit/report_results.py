"""Results as a run writes them, made up, with a class name that means harm."""

from __future__ import annotations

from typing import Any

EVIL = '<img src=x onerror="alert(1)">\'$x_{$&amp;鉗'
NAMES = ("hook", "clip applier", EVIL)


def gain(mean: float, low: float, high: float) -> dict[str, Any]:
    rare = {"rare": 2 * mean, "rare_ci95": [2 * low, 2 * high]}
    return {"mean": mean, "ci95": [low, high], "p": 0.0004, "p_holm": 0.0123, **rare}


def results(over_real: tuple[float, float, float] = (0.041, 0.012, 0.07)) -> dict[str, Any]:
    """Results as the pipeline writes them, of three arms."""
    arm: dict[str, Any] = {
        "mean": 0.6,
        "ci95": [0.55, 0.65],
        "rare_mean": 0.4,
        "rare_ci95": [0.3, 0.5],
        "per_seed": [0.59, 0.61],
    }
    arm |= {"per_class": dict.fromkeys(NAMES, 0.5), "macro_f1": 0.58, "calibration_error": 0.1, "mixing": None}
    arm |= {"n_synthetic": 0, "n_generated": 1040, "unet_evaluations": 24960, "steps": 300}
    made: dict[str, Any] = {
        "kid": 0.02,
        "precision": 0.7,
        "recall": 0.5,
        "coverage": 0.6,
        "told_apart": 0.93,
        "memorised": 0.01,
        "judge_agreement": 0.8,
    }
    made |= {"memorised_by_class": {}, "judge_by_class": dict.fromkeys(NAMES, 0.75), "n": 30}
    gains = {"round-2 - real": gain(*over_real), "round-2 - unaligned": gain(0.02, 0.001, 0.04)}
    return {
        "schema": 1, "task": "classification", "final": True, "split": "test", "metric": "balanced_accuracy",
        "name": EVIL, "n_train": 9, "n_val": 4, "n_test": 1600, "seeds": [0, 1, 2], "pipeline_seeds": [0],
        "groups": {"train": ["a", "b"], "val": ["c"], "test": [f"patient-{k}" for k in range(20)]},
        "classes": list(NAMES), "rare_classes": [EVIL], "arms": dict.fromkeys(("real", "unaligned", "round-2"), arm),
        "interval": {"method": "crossed bootstrap", "unit": "patients and trainings", "given": "given one generator"},
        "gains": gains | {"round-2 - rejection": gain(-0.01, -0.03, 0.01)},
        "synthetic": {"unaligned": made, "round-2": made}, "features": "a network",
        "memorisation_yardstick": "fresh images", "memorised_fresh": 0.05,
        "membership": {
            "against": EVIL, "n": [9, 4], "base": {"auc": 0.61, "ci95": [0.55, 0.67]},
            "aligned": {"auc": 0.62, "ci95": [0.56, 0.68]},
        },
        "judge_gains": {"round-2 - unaligned": {"mean": 0.03, "ci95": [0.01, 0.052], "n": 96}},
        "critic": {"model": "small-cnn", "folds": 3, "judge_model": EVIL}, "val_choices": {"mixing": {EVIL: 0.25}},
        "seconds": {"base": 92.4, EVIL: 3.0}, "peak_memory": 3 * 1024**3, "versions": {EVIL: EVIL},
        "hashes": {"config": "abc", "test_set": "def"}, "notes": [EVIL],
    }  # fmt: skip
