// Metrics of classes and of numbers, in percent, as scikit-learn and SciPy define them.
#pragma once

#include <cstdint>
#include <span>

namespace sw {

/// A class that is none: an answer that names no class of the task.
constexpr int32_t kNoClass = -1;

/// Share of equal classes.
double accuracy(std::span<const int32_t> targets, std::span<const int32_t> predictions);

/// F1 of class 1; a prediction that is neither 0 nor 1 counts as the opposite of its target (as
/// `f1_score_with_invalid` of the T5 authors). 0 where nothing is 1.
double binary_f1(std::span<const int32_t> targets, std::span<const int32_t> predictions);

/// Mean of the F1 of the classes 0 .. classes - 1, those that never occur counting 0.
double mean_class_f1(std::span<const int32_t> targets, std::span<const int32_t> predictions,
                     int32_t classes);

/// Matthews' correlation coefficient for any number of classes, kNoClass being one of them
/// (Gorodkin 2004); 0 where one side has a single class.
double matthews_correlation(std::span<const int32_t> targets, std::span<const int32_t> predictions);

/// Pearson's correlation coefficient. 0 where it is undefined, because one side is constant (SciPy
/// gives no number there, which no best checkpoint could be chosen by).
double pearson_correlation(std::span<const double> targets, std::span<const double> predictions);

/// Spearman's: Pearson's of the ranks, equal values sharing their mean rank.
double spearman_correlation(std::span<const double> targets, std::span<const double> predictions);

}  // namespace sw
