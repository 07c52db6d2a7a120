#include <cmath>

#include "libswitch/train/metrics.h"

namespace sw {

std::string rough_duration(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(std::max(seconds, 0.0)));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02d}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02d}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d{:02d}h", s / 86400, s / 3600 % 24);
}

std::string rough_count(double count) {
  if (!(count >= 1000)) return fmt::format("{:.0f}", count);
  const char* units = "kMGT";
  int unit = 0;
  double value = count / 1000;
  for (; value >= 999.95 && unit < 3; value /= 1000) ++unit;
  return fmt::format("{:.{}f}{}", value, value < 10 ? 2 : 1, units[unit]);
}

double LineFacts::share_done(int64_t step) const {
  const int64_t all = steps - first_step;
  return steps > 0 && all > 0 ? static_cast<double>(step - first_step) / static_cast<double>(all)
                              : 0.0;
}

std::string train_line(const TrainMetrics& m, const LineFacts& facts) {
  std::string line = fmt::format("step {}", m.step);
  if (facts.steps > 0) {
    line += fmt::format("/{} {:.1f}%", facts.steps, 100 * facts.share_done(m.step));
  }
  line += fmt::format(" | loss {:.4f}", m.loss);
  if (m.soft_cross_entropy != 0) {
    line += fmt::format(" hard {:.4f} soft {:.4f}", m.cross_entropy, m.soft_cross_entropy);
  }
  if (m.max_over_mean_load > 0) line += fmt::format(" | aux {:.2e} z {:.2e}", m.aux_loss, m.z_loss);
  line += fmt::format(" | gnorm {:.3g} | lr {:.2e} | {} tok/s", m.grad_norm, m.lr,
                      rough_count(m.tokens_per_second));
  if (m.share_of_peak > 0) line += fmt::format(" | mfu {:.1f}%", 100 * m.share_of_peak);
  if (m.max_over_mean_load > 0) {
    line += fmt::format(" | drop {:.1f}% bal {:.2f} dead {}", 100 * m.dropped_share,
                        m.max_over_mean_load, m.dead_experts);
  }
  if (facts.memory_bytes > 0) {
    line += fmt::format(" | mem {}", rough_count(static_cast<double>(facts.memory_bytes)));
  }
  line += fmt::format(" | data {:.1f}%", 100 * m.data_wait_share);
  if (facts.checkpoint_age >= 0) {
    line += fmt::format(" ckpt {}", rough_duration(facts.checkpoint_age));
  }
  if (facts.skipped > 0) line += fmt::format(" | skipped {}", facts.skipped);
  if (facts.eta >= 0) line += fmt::format(" | eta {}", rough_duration(facts.eta));
  return line;
}

std::string evaluation_line(const Evaluation& e, int64_t step) {
  std::string line =
      fmt::format("step {} | eval {} | neg log perplexity {:.4f} | {} targets | drop {:.2f}%", step,
                  e.data, e.neg_log_perplexity, e.tokens, 100 * e.dropped_share);
  for (const auto& [name, value] : e.metrics) line += fmt::format(" | {} {:.2f}", name, value);
  return line;
}

}  // namespace sw
