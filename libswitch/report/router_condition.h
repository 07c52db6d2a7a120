// A condition on a layer's routing, for scripts: "drop>5% or dead>0".
#pragma once

#include <memory>
#include <string>

#include "libswitch/report/router_drift.h"

namespace sw {

/// Comparisons `NAME OP NUMBER[%]` joined by `and`, `or` (also && and ||; `and` binds tighter) and
/// parentheses. OP is > >= < <= == or !=. NAME is one of
///
///   drop (dropped, dropped_share)      share of tokens dropped, 0..1
///   dead, starving                     experts; with %, their share of all experts
///   max (max/mean, max_over_mean)      largest load over the mean; min: the smallest
///   cv, gini                           of the load, 0 is even
///   entropy                            of the load, normalised, 1 is even
///   confidence (conf)                  mean gate
///   capacity (full, capacity_use)      share of the slots that were filled
///   aux (aux_loss), z (z_loss)         losses
///   tokens, experts                    counts
///   same                               share of tokens on the expert of the token before; with
///   data drift, cosine                      share of the load that moved, likeness of the routers;
///   of
///                                      two checkpoints
///   saturation (same_expert)           share of tokens on the same expert; of two, with data
class RouterCondition {
 public:
  /// Throws usage, naming the place in `text`.
  explicit RouterCondition(const std::string& text);
  ~RouterCondition();
  RouterCondition(RouterCondition&&) noexcept;
  RouterCondition& operator=(RouterCondition&&) noexcept;

  const std::string& text() const { return text_; }
  /// Throws usage when it asks for a figure of two checkpoints or of data where there is none.
  void check_known(bool two_checkpoints, bool data) const;
  /// Whether it holds for this layer; a figure that is not a number fulfils no comparison but !=.
  bool holds(const LayerReport& layer, const LayerDrift* drift = nullptr) const;

 private:
  struct Node;
  friend class RouterConditionParser;
  std::string text_;
  std::unique_ptr<Node> root_;
};

}  // namespace sw
