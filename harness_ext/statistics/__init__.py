"""The statistics of a dense-against-pruned experiment.

``compare`` sets a pruned model against the dense one on the same items, ``over_seeds`` sums up calibration seeds, ``critical_sparsity``
and ``ability_critical`` say where an ability fails, and ``disparity`` whether in-context ability outlasts recall. Everything takes scores
item by item, and needs neither torch nor lm-eval. docs/statistics.md says what is computed and how well the intervals hold.
"""

from harness_ext.statistics.checks import StatisticsError
from harness_ext.statistics.critical import (
    DROPS,
    AbilityCurve,
    Critical,
    ability_critical,
    ability_curve,
    critical_sparsity,
    sparsities_to_add,
)
from harness_ext.statistics.curves import Curve, isotonic
from harness_ext.statistics.difficulty import DifficultyBin, by_difficulty
from harness_ext.statistics.disparity import Disparity, disparity
from harness_ext.statistics.families import family_mean, family_weights
from harness_ext.statistics.labels import Labels, balanced_accuracy, entropy, label_use
from harness_ext.statistics.matched_models import MatchedModels, matched_over_models
from harness_ext.statistics.matching import MatchedDisparity, Matching, Overlap, matched_disparity
from harness_ext.statistics.methods import MethodDifference, PairedScores, ability_difference, task_difference
from harness_ext.statistics.models import ModelsDisparity, disparity_over_models
from harness_ext.statistics.multiplicity import holm, p_value
from harness_ext.statistics.pairs import Accuracy, Comparison, Flips, McNemar, Scores, accuracy, compare, flips, mcnemar
from harness_ext.statistics.results import Estimate, Result
from harness_ext.statistics.seeds import OverSeeds, Spread, over_seeds

__all__ = [
    "DROPS",
    "AbilityCurve",
    "Accuracy",
    "Comparison",
    "Critical",
    "Curve",
    "DifficultyBin",
    "Disparity",
    "Estimate",
    "Flips",
    "Labels",
    "MatchedDisparity",
    "MatchedModels",
    "Matching",
    "McNemar",
    "MethodDifference",
    "ModelsDisparity",
    "OverSeeds",
    "Overlap",
    "PairedScores",
    "Result",
    "Scores",
    "Spread",
    "StatisticsError",
    "ability_critical",
    "ability_curve",
    "ability_difference",
    "accuracy",
    "balanced_accuracy",
    "by_difficulty",
    "compare",
    "critical_sparsity",
    "disparity",
    "disparity_over_models",
    "entropy",
    "family_mean",
    "family_weights",
    "flips",
    "holm",
    "isotonic",
    "label_use",
    "matched_disparity",
    "matched_over_models",
    "mcnemar",
    "over_seeds",
    "p_value",
    "sparsities_to_add",
    "task_difference",
]
