// Products with weights.
#pragma once

#include "libswitch/tape/context.h"

namespace sw::ops {

/// y = x·w; x [.., K] in w's dtype, w [K, N]; y [.., N]. Saves x. d_w is in w's slot dtype
/// (master).
Var linear(Context& context, const Var& x, const Var& w);

/// y [N, E] = x [N, E] + bias [E], master.
Var add_bias(Context& context, const Var& x, const Var& bias);

/// Per-expert products: rows [offsets[e], offsets[e+1]) of x times w[e]. x [R, K], w [E, K, N],
/// offsets [E+1] i32.
Var expert_linear(Context& context, const Var& x, const Var& w, const Tensor& offsets);

}  // namespace sw::ops
