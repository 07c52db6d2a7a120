#include "tests/support/op_case.h"

#include <gtest/gtest.h>

#include <cmath>

#include "libswitch/tape/checkpoint.h"
#include "libswitch/tape/gradcheck.h"
#include "tests/support/kernel_case.h"

namespace sw::test {
namespace {

// Values are drawn in bf16, so that every dtype starts from the same numbers.
std::vector<Tensor> draw_inputs(const OpCase& op, DType dtype) {
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const OpInput& input = op.inputs[i];
    const Tensor values = uniform_tensor(input.shape, DType::bf16, 100 + i, input.low, input.high);
    tensors.push_back(values.to(input.master ? master_dtype(dtype) : dtype));
  }
  return tensors;
}

Var make_var(const Tensor& value, const OpInput& input, DType dtype) {
  if (!input.weight) return Var::leaf(value);
  return Var(value, std::make_shared<GradientSlot>(value.shape(), master_dtype(dtype), Device{}));
}

// The loss is Σ weight · output with fixed weights, so that d_output is those weights.
Tensor output_weights(const Tensor& output, size_t index) {
  return uniform_tensor(output.shape(), DType::bf16, 900 + index, -1, 1).to(output.dtype());
}

double weighted_sum(const std::vector<Var>& outputs) {
  double sum = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto y = outputs[i].value().to_vector();
    const auto w = output_weights(outputs[i].value(), i).to_vector();
    for (size_t j = 0; j < y.size(); ++j) sum += y[j] * w[j];
  }
  return sum;
}

enum class Use { once, twice, recomputed };

struct Result {
  std::vector<Tensor> outputs;
  std::vector<Tensor> gradients;  // per input
};

Context make_context(DType dtype, Tape* tape) {
  Context context;
  context.compute = dtype;
  context.training = true;
  context.seed = 11;
  context.tape = tape;
  return context;
}

Result run_once(const OpCase& op, DType dtype, Use use) {
  const std::vector<Tensor> values = draw_inputs(op, dtype);
  std::vector<Var> inputs;
  for (size_t i = 0; i < values.size(); ++i) {
    // Ops may work in place on a value that has no other reader: each run owns its inputs.
    inputs.push_back(make_var(values[i].clone(), op.inputs[i], dtype));
  }
  Tape tape;
  Context context = make_context(dtype, &tape);
  Result result;
  for (int pass = 0; pass < (use == Use::twice ? 2 : 1); ++pass) {
    std::vector<Var> fresh;
    for (size_t i = 0; i < inputs.size(); ++i) {
      fresh.push_back(Var(values[i].clone(), inputs[i].slot()));
    }
    const std::vector<Var> outputs =
        use == Use::recomputed ? checkpoint(
                                     context,
                                     [&](Context& c, const std::vector<Var>&) {
                                       std::vector<Var> again;
                                       for (size_t i = 0; i < inputs.size(); ++i) {
                                         again.push_back(Var(values[i].clone(), inputs[i].slot()));
                                       }
                                       return op.run(c, again);
                                     },
                                     fresh)
                               : op.run(context, fresh);
    if (pass == 0) {
      for (const Var& output : outputs) result.outputs.push_back(output.value().clone());
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].needs_gradient()) {
        outputs[i].slot()->adopt(context.stream, output_weights(outputs[i].value(), i));
      }
    }
    tape.backward();
  }
  for (const Var& input : inputs) result.gradients.push_back(input.slot()->gradient());
  return result;
}

void check_finite_differences(const OpCase& op) {
  const Result analytic = run_once(op, DType::f64, Use::once);
  std::vector<Tensor> values = draw_inputs(op, DType::f64);
  const auto loss = [&] {
    Context context = make_context(DType::f64, nullptr);
    std::vector<Var> inputs;
    for (const Tensor& value : values) inputs.push_back(Var(value.clone()));
    return weighted_sum(op.run(context, inputs));
  };
  for (size_t i = 0; i < values.size(); ++i) {
    const GradientError error =
        check_gradient(loss, values[i], analytic.gradients[i], 24, 1e-6, 1e-3, 1e-3);
    EXPECT_LT(error.worst, 1e-5) << op.name << ", input " << i << ": " << error.str();
  }
}

void check_precision(const OpCase& op, DType dtype, const Result& exact) {
  const Result got = run_once(op, dtype, Use::once);
  const auto compare = [&](const Tensor& a, const Tensor& b, const std::string& what) {
    double largest = 0;
    for (const double x : b.to_vector()) largest = std::max(largest, std::abs(x));
    const double unit =
        dtype == DType::bf16 ? epsilon(DType::bf16) * op.spread : 64 * epsilon(DType::f32);
    const double sum = 4 * epsilon(DType::f32) * static_cast<double>(op.terms) * op.scale;
    const auto x = a.to_vector(), y = b.to_vector();
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(x[i], y[i], unit * largest + sum)
          << op.name << " " << dtype_name(dtype) << ", " << what << ", element " << i;
    }
  };
  for (size_t i = 0; i < got.outputs.size(); ++i) {
    compare(got.outputs[i], exact.outputs[i], "output " + std::to_string(i));
  }
  for (size_t i = 0; i < got.gradients.size(); ++i) {
    compare(got.gradients[i], exact.gradients[i], "gradient " + std::to_string(i));
  }
}

void check_second_use_adds(const OpCase& op) {
  const Result once = run_once(op, DType::f64, Use::once);
  const Result twice = run_once(op, DType::f64, Use::twice);
  for (size_t i = 0; i < once.gradients.size(); ++i) {
    const auto a = once.gradients[i].to_vector(), b = twice.gradients[i].to_vector();
    for (size_t j = 0; j < a.size(); ++j) {
      ASSERT_NEAR(b[j], 2 * a[j], 1e-12 * (1 + std::abs(a[j])) * static_cast<double>(op.terms))
          << op.name << ", input " << i << ", element " << j;
    }
  }
}

void check_recomputation(const OpCase& op, DType dtype) {
  const Result kept = run_once(op, dtype, Use::once);
  const Result again = run_once(op, dtype, Use::recomputed);
  for (size_t i = 0; i < kept.gradients.size(); ++i) {
    expect_same_bits(again.gradients[i], kept.gradients[i],
                     op.name + " recomputed, gradient " + std::to_string(i));
  }
}

}  // namespace

void check_op(const OpCase& op) {
  SCOPED_TRACE(op.name);
  check_finite_differences(op);
  const Result exact = run_once(op, DType::f64, Use::once);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_precision(op, dtype, exact);
    check_recomputation(op, dtype);
  }
  check_second_use_adds(op);
}

}  // namespace sw::test
