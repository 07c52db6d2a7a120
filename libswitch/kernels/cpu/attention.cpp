#include "libswitch/kernels/attention.h"
#include <cmath>
#include <vector>
#include "libswitch/base/parallel.h"
namespace sw::kernels::cpu {
namespace {
template <class T>
void fwd(Tensor& out, Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
         const Tensor& bias, const Tensor& qs, const Tensor& ks, const AttentionParams& p,
         Tensor* dq, Accum aq, Tensor* dk, Accum ak, Tensor* dv, Accum av, Tensor* db,
         const Tensor* dout) {
  using A = Acc<T>;
  const int64_t W = p.heads * p.head_dim, D = p.head_dim, Tq = p.query_length, S = p.key_length;
  std::vector<double> dK(p.batch * S * W), dV(p.batch * S * W), dQ(p.batch * Tq * W),
      dB(p.heads * (Tq + S - 1));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < Tq; ++i) {
        std::vector<double> w(S);
        bool any = false;
        double mx = -1e300;
        std::vector<char> vis(S);
        for (int64_t j = 0; j < S; ++j) {
          vis[j] = !(p.causal && j > i) && (!qs.defined() || qs.data<int32_t>()[b * Tq + i] ==
                                                                 ks.data<int32_t>()[b * S + j]);
          if (!vis[j]) continue;
          any = true;
          double s = 0;
          for (int64_t d = 0; d < D; ++d)
            s += double(A(q.data<T>()[(b * Tq + i) * W + h * D + d])) *
                 double(A(k.data<T>()[(b * S + j) * W + h * D + d]));
          if (bias.defined()) s += bias.data<A>()[h * (Tq + S - 1) + j - i + Tq - 1];
          w[j] = s;
          mx = std::max(mx, s);
        }
        double z = 0;
        for (int64_t j = 0; j < S; ++j) {
          if (!any)
            w[j] = 1;
          else
            w[j] = vis[j] ? std::exp(w[j] - mx) : 0;
          z += w[j];
        }
        for (auto& x : w) x /= z;
        auto mask = [&](int64_t j) {
          if (p.dropout <= 0) return 1.0;
          uint64_t idx = p.share_over_queries
                             ? ((p.first_row + b) * p.heads + h) * S + j
                             : (((p.first_row + b) * p.heads + h) * Tq + i) * S + j;
          return random_uniform(p.dropout_key, idx) >= float(p.dropout) ? 1 / (1 - p.dropout) : 0.0;
        };
        if (!dout) {
          for (int64_t d = 0; d < D; ++d) {
            double o = 0;
            for (int64_t j = 0; j < S; ++j)
              o += w[j] * mask(j) * double(A(v.data<T>()[(b * S + j) * W + h * D + d]));
            out.data<T>()[(b * Tq + i) * W + h * D + d] = T(A(o));
          }
          lse.data<A>()[(b * p.heads + h) * Tq + i] = A(mx + std::log(z));
          continue;
        }
        std::vector<double> dw(S);
        double dot = 0;
        for (int64_t j = 0; j < S; ++j) {
          double g = 0;
          for (int64_t d = 0; d < D; ++d) {
            double go = double(A(dout->data<T>()[(b * Tq + i) * W + h * D + d]));
            g += go * double(A(v.data<T>()[(b * S + j) * W + h * D + d]));
            dV[(b * S + j) * W + h * D + d] += go * w[j] * mask(j);
          }
          dw[j] = g * mask(j);
          dot += dw[j] * w[j];
        }
        if (!any) continue;
        for (int64_t j = 0; j < S; ++j) {
          double ds = w[j] * (dw[j] - dot);
          if (bias.defined()) dB[h * (Tq + S - 1) + j - i + Tq - 1] += ds;
          for (int64_t d = 0; d < D; ++d) {
            dQ[(b * Tq + i) * W + h * D + d] +=
                ds * double(A(k.data<T>()[(b * S + j) * W + h * D + d]));
            dK[(b * S + j) * W + h * D + d] +=
                ds * double(A(q.data<T>()[(b * Tq + i) * W + h * D + d]));
          }
        }
      }
  if (dout) {
    auto put = [](Tensor* t, Accum a, std::vector<double>& x) {
      T* y = t->data<T>();
      for (size_t i = 0; i < x.size(); ++i)
        y[i] = T(A(a == Accum::add ? double(A(y[i])) + x[i] : x[i]));
    };
    put(dq, aq, dQ);
    put(dk, ak, dK);
    put(dv, av, dV);
    if (db->defined())
      for (size_t i = 0; i < dB.size(); ++i) db->data<A>()[i] = A(dB[i]);
  }
}
}  // namespace
void attention_forward(const Stream&, Tensor& out, Tensor& lse, const Tensor& q, const Tensor& k,
                       const Tensor& v, const Tensor& bias, const Tensor& qs, const Tensor& ks,
                       const AttentionParams& p) {
  Tensor n;
  switch (q.dtype()) {
    case DType::f32:
      fwd<float>(out, lse, q, k, v, bias, qs, ks, p, 0, Accum::write, 0, Accum::write, 0,
                 Accum::write, 0, 0);
      break;
    case DType::f64:
      fwd<double>(out, lse, q, k, v, bias, qs, ks, p, 0, Accum::write, 0, Accum::write, 0,
                  Accum::write, 0, 0);
      break;
    default:
      fwd<bf16>(out, lse, q, k, v, bias, qs, ks, p, 0, Accum::write, 0, Accum::write, 0,
                Accum::write, 0, 0);
  }
}
void attention_backward(const Stream&, Tensor& dq, Accum aq, Tensor& dk, Accum ak, Tensor& dv,
                        Accum av, Tensor& db, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& bias, const Tensor& qs, const Tensor& ks, const Tensor& out,
                        const Tensor& lse, const Tensor& dout, const AttentionParams& p) {
  Tensor o = out, l = lse;
  switch (q.dtype()) {
    case DType::f32:
      fwd<float>(o, l, q, k, v, bias, qs, ks, p, &dq, aq, &dk, ak, &dv, av, &db, &dout);
      break;
    case DType::f64:
      fwd<double>(o, l, q, k, v, bias, qs, ks, p, &dq, aq, &dk, ak, &dv, av, &db, &dout);
      break;
    default: fwd<bf16>(o, l, q, k, v, bias, qs, ks, p, &dq, aq, &dk, ak, &dv, av, &db, &dout);
  }
}
}  // namespace sw::kernels::cpu
