"""A trial's evaluations, told to Optuna as training goes."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class ReportToStudy(TrainerCallback):
    """Reports each evaluation; raises TrialPruned when the study's pruner gives the trial up.

    A step is a percentage of the training, so that trials of different batch sizes compare.
    """

    def __init__(self, trial: Any, metric: str) -> None:
        self.trial = trial
        self.metric = metric

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """Report, and stop where it is not worth going on; the last evaluation always counts."""
        from optuna import TrialPruned

        self.trial.report(
            metrics[f"eval_{self.metric}"], round(100 * state.global_step / state.max_steps)
        )
        if state.global_step < state.max_steps and self.trial.should_prune():
            raise TrialPruned
