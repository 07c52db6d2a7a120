// Ops on threads that stand for the ranks of a model axis.
#pragma once

#include <functional>
#include <string>

#include "libswitch/comm/mesh.h"
#include "libswitch/tape/context.h"

namespace sw::test {

/// Runs fn(context, this rank's part) as every rank of a mesh {model = ranks}, in training, with a
/// tape in the context.
void on_model_ranks(int64_t ranks, const std::function<void(Context&, MeshPart)>& fn);

/// Expects every rank of the model axis to hold the same bits; called by all of them.
void expect_alike(Context& context, const Tensor& x, const std::string& what);

/// Copies of part `part` of the columns of x [N, D], and of its rows.
Tensor columns_of(const Tensor& x, MeshPart part);
Tensor rows_of(const Tensor& x, MeshPart part);

}  // namespace sw::test
