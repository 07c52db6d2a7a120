// A condition on a layer's routing, for scripts: "drop>5% or dead>0".
#pragma once

#include <memory>
#include <string>

#include "libswitch/train/router_report.h"

namespace sw {

/// Comparisons `NAME OP NUMBER[%]` joined by `and`, `or` (also && and ||; `and` binds tighter) and
/// parentheses. OP is > >= < <= == or !=. NAME is one of
///
///   drop (dropped, dropped_share)      share of tokens dropped, 0..1
///   dead                               dead experts; with %, their share of all experts
///   max (max/mean, max_over_mean)      largest load over the mean
///   entropy                            normalised entropy of the load, 1 is even
///   confidence (conf)                  mean gate
///   aux (aux_loss), z (z_loss)         losses
///   tokens, experts                    counts
///   drift                              share of the load that moved, between two checkpoints
class RouterCondition {
 public:
  /// Throws usage, naming the place in `text`.
  explicit RouterCondition(const std::string& text);
  ~RouterCondition();
  RouterCondition(RouterCondition&&) noexcept;
  RouterCondition& operator=(RouterCondition&&) noexcept;

  const std::string& text() const { return text_; }
  /// Whether it asks for drift, which needs two checkpoints.
  bool uses_drift() const;
  /// Whether it holds for this layer; a figure that is not a number fulfils no comparison but !=.
  bool holds(const RouterStatistics& layer, const LayerDrift* drift = nullptr) const;

 private:
  struct Node;
  friend class RouterConditionParser;
  std::string text_;
  std::unique_ptr<Node> root_;
};

}  // namespace sw
