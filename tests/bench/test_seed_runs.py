"""Several seeds: means, intervals and tests over seeds against published examples and SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_factory import make_results
from scipy import stats

from bench.engines.prepare import Prepared
from bench.report.summary import summarise
from bench.report.tables.scenario_grids import seed_summaries, seeds_grid
from bench.results.records import Results
from bench.rounds.checkpoint import Measurement
from bench.rounds.compose import describe_variant
from bench.statistics.seeds import compare_seeds, mean_interval, summarise_seeds
from bench.variants.text import Contender, Variant
from finetune.recipes.text import FinetuneRecipe
from finetune.run_folder import Run

# Student 1908, "The probable error of a mean": hours of sleep gained with two drugs
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_same_seeds_are_paired_as_in_students_example() -> None:
    """R: t.test(first, second, paired = TRUE): p = 0.002833, -2.4598858 to -0.7001142."""
    found = compare_seeds(dict(enumerate(FIRST)), dict(enumerate(SECOND)))
    assert found.test == "paired t"
    assert found.difference.value == pytest.approx(-1.58)
    assert found.difference.low == pytest.approx(-2.4598858, abs=1e-6)
    assert found.difference.high == pytest.approx(-0.7001142, abs=1e-6)
    assert found.p_value == pytest.approx(0.002833, abs=1e-6)


def test_other_seeds_are_welchs_as_in_students_example() -> None:
    """R: t.test(first, second): p = 0.07939, -3.3654832 to 0.2054832."""
    other = {seed + 100: value for seed, value in enumerate(SECOND)}
    found = compare_seeds(dict(enumerate(FIRST)), other)
    assert found.test == "Welch t"
    assert found.difference.low == pytest.approx(-3.3654832, abs=1e-6)
    assert found.difference.high == pytest.approx(0.2054832, abs=1e-6)
    assert found.p_value == pytest.approx(0.07939, abs=1e-5)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_the_mean_interval_is_scipys(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.low <= found.value <= found.high
    if np.std(values) > 1e-9:
        ends = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(ends[0]), pytest.approx(ends[1]))


def test_runs_that_all_agree_have_no_p_value_by_accident() -> None:
    same = {1: 0.5, 2: 0.5, 3: 0.5}
    assert compare_seeds(same, same).p_value == 1
    assert compare_seeds({1: 0.6, 2: 0.6}, {1: 0.5, 2: 0.5}).p_value == 0
    assert compare_seeds({1: 0.6, 2: 0.6}, {3: 0.6, 4: 0.6}).p_value == 1


def test_recipes_are_compared_with_the_baselines_and_corrected() -> None:
    generator = np.random.default_rng(1)
    base = {seed: 0.85 + generator.normal(0, 0.003) for seed in range(5)}
    groups = {
        "full": base,
        "better": {seed: value + 0.02 + generator.normal(0, 0.001) for seed, value in base.items()},
        "same": {seed: value + generator.normal(0, 0.003) for seed, value in base.items()},
        "alone": {0: 0.9},
    }
    found = {one.name: one for one in summarise_seeds(groups, "full")}
    assert list(found) == ["full", "better", "same"]
    assert found["full"].comparison is None
    assert found["better"].comparison.finding == "better"
    assert found["same"].comparison.finding == "tie"
    assert found["better"].comparison.p_adjusted >= found["better"].comparison.p_value
    assert all(one.comparison is None for one in summarise_seeds(groups, None))


def test_recipes_that_differ_only_in_seed_and_name_are_one() -> None:
    def described(**changes: Any) -> dict[str, Any]:
        content = {"data": {"source": "sample", "seed": 1}, **changes}
        recipe = FinetuneRecipe.model_validate(content)
        run = Run(Path("runs/a"), "a", "lora", {}, ("부정", "긍정"), 32, recipe, {})
        variant = Variant("a", "lora", "onnx", "fp32", None, Contender(run, None), "")
        return describe_variant(Prepared(variant, 1, None, None, None), Measurement())

    first = described(seed=1, name="one")
    other = described(seed=2, name="two", output="elsewhere/{name}")
    assert first["recipe"] == other["recipe"]
    assert (first["seed"], other["seed"]) == (1, 2)
    assert described(adapter={"rank": 4})["recipe"] != first["recipe"]


def test_one_data_seed_gives_all_seeds_the_same_rows() -> None:
    from finetune.data.reviews import load_corpus

    section = FinetuneRecipe.model_validate({"data": {"source": "sample", "seed": 5}}).data
    one, other = (load_corpus(section, seed) for seed in (1, 2))
    assert one.test["row"].tolist() == other.test["row"].tolist()
    free = section.model_copy(update={"seed": None})
    rows = [load_corpus(free, seed).train["row"].tolist() for seed in (1, 2)]
    assert rows[0] != rows[1]


def test_the_report_groups_runs_by_their_recipe() -> None:
    content = make_results(failed=False)
    runs = {"nsmc-full": ("aa", 1), "nsmc-lora": ("bb", 1)}
    for variant in content["variants"]:
        variant["recipe"], variant["seed"] = runs.get(variant["run"], (None, None))
    again = [
        {**one, "name": f"{one['name']}-2", "seed": 2}
        for one in content["variants"]
        if one["recipe"]
    ]
    for one in again:
        one["predicted"] = [1 - c if row < 9 else c for row, c in enumerate(one["predicted"])]
    summary = summarise(
        Results.model_validate({**content, "variants": content["variants"] + again})
    )
    found = {one.name: one for one in seed_summaries(summary)}
    assert {"full-pytorch-fp32", "lora-onnx-int8"} <= set(found)
    assert set(found["lora-onnx-int8"].accuracies) == {1, 2}
    assert found["full-pytorch-fp32"].comparison is None
    assert found["lora-onnx-int8"].comparison.test == "paired t"
    grid = seeds_grid(summary)
    assert len(grid.rows) == len(found)
    assert seeds_grid(summarise(Results.model_validate(content))) is None
