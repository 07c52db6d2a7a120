"""Makes moe_mesh.json: routing, losses and gradients of Mesh TensorFlow's gating functions.

Needs Python 3.11 with tensorflow-cpu==2.15.1 mesh-tensorflow==0.1.21 gin-config "numpy<2" "protobuf<5".
usage: make_moe_mesh.py > moe_mesh.json

Per case the loss is sum over tokens, experts and slots of combine * weights[n][e] plus the gating
function's own loss, and d_logits its gradient.
"""
import json
import os
import sys
import types

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from tensorflow.python.framework import ops, tensor_conversion_registry

if not hasattr(ops, "register_tensor_conversion_function"):
    ops.register_tensor_conversion_function = (
        tensor_conversion_registry.register_tensor_conversion_function)
sys.modules.setdefault("tensorflow_datasets", types.ModuleType("tensorflow_datasets"))  # not used
import mesh_tensorflow as mtf
import numpy as np
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import moe

tf.disable_eager_execution()
tf.logging.set_verbosity(tf.logging.ERROR)


def run(name, gating, groups, size, experts, factor, min_capacity, seed, train=True, second="all",
        ntlb_k=3, z=None, padding=0, scale=1.0, ties=False):
    tf.reset_default_graph()
    rng = np.random.RandomState(seed)
    logits = (scale * rng.randn(groups, size, experts)).astype(np.float32)
    if ties:
        logits = np.round(logits).astype(np.float32)
    real = np.ones((groups, size), np.float32)
    for g in range(groups):
        real[g, rng.permutation(size)[:padding + g if padding else 0]] = 0
    logits *= real[..., None]
    weights = rng.randn(groups, size, experts).astype(np.float32)
    capacity = max(min(size, int(size * factor / experts)), min_capacity)

    mesh = mtf.Mesh(mtf.Graph(), "mesh")
    outer, group = mtf.Dimension("outer_batch", 1), mtf.Dimension("batch", groups)
    token, expert = mtf.Dimension("group", size), mtf.Dimension("expert_unsplit", experts)
    slot = mtf.Dimension("expert_capacity", capacity)
    feed = tf.constant(logits[None])
    given = mtf.import_tf_tensor(mesh, feed, mtf.Shape([outer, group, token, expert]))
    importance = mtf.import_tf_tensor(mesh, tf.constant(real[None]), mtf.Shape([outer, group, token]))
    per_expert = mtf.import_tf_tensor(mesh, tf.constant(weights[None]),
                                      mtf.Shape([outer, group, token, expert]))
    hparams = types.SimpleNamespace(
        moe_switch_policy_train="argmax", moe_switch_policy_eval="argmax",
        moe_word_embed_mode=None, moe_use_second_place_expert_prob=None, moe_z_loss=z,
        moe_use_second_place_loss=0, moe_second_policy_train=second, moe_second_policy_eval=second,
        moe_second_threshold_train=0.2, moe_second_threshold_eval=0.2, moe_ntlb_top_k=ntlb_k)
    dense = mtf.layers.dense
    mtf.layers.dense = lambda x, *unused, **also: given  # the logits themselves, whatever the input
    try:
        model = mtf.Dimension("d_model", 2)
        inputs = mtf.zeros(mesh, mtf.Shape([outer, group, token, model]))
        dispatch, combine, loss = getattr(moe, "_%s_gating" % gating)(
            inputs=inputs, outer_expert_dims=None, experts_dim=expert, expert_capacity_dim=slot,
            hparams=hparams, train=train, variable_dtype=mtf.VariableDType(tf.float32),
            importance=importance, num_microbatches=1)
    finally:
        mtf.layers.dense = dense
    objective = loss + mtf.reduce_sum(mtf.einsum(
        [combine, per_expert], mtf.Shape([outer, group, token])))
    gradient, = mtf.gradients([objective], [given])
    order = mtf.Shape([outer, group, token, expert, slot])
    wanted = [mtf.reduce_sum(dispatch, output_shape=order),
              mtf.reduce_sum(combine, output_shape=order), loss,
              mtf.transpose(gradient, mtf.Shape([outer, group, token, expert]))]
    impl = mtf.placement_mesh_impl.PlacementMeshImpl(
        shape=mtf.convert_to_shape(""), layout=mtf.convert_to_layout_rules(""), devices=[""])
    lowering = mtf.Lowering(mesh.graph, {mesh: impl})
    fetch = [lowering.export_to_tf_tensor(tensor) for tensor in wanted]
    with tf.Session() as session:
        d, c, value, d_logits = session.run(fetch)
    tokens = []
    for g in range(groups):
        for n in range(size):
            kept = [[int(e), int(s), float("%.9g" % c[0, g, n, e, s])]
                    for e, s in zip(*np.nonzero(d[0, g, n]))]
            tokens.append(sorted(kept, key=lambda k: -k[2]))
    short = lambda a: [float("%.9g" % v) for v in np.asarray(a, np.float64).ravel()]
    return dict(name=name, gating=gating, groups=groups, group_size=size, experts=experts,
                capacity_factor=factor, min_capacity=min_capacity, capacity=capacity, train=train,
                second=second, ntlb_k=ntlb_k, z=z or 0.0, logits=short(logits),
                nonpadding=[int(v) for v in real.ravel()], weights=short(weights), tokens=tokens,
                loss=float(value), d_logits=short(d_logits))


def main():
    cases = [
        run("SwitchDrops", "switch", 2, 12, 4, 1.0, 2, 1),
        run("SwitchPaddedWithRouterZ", "switch", 2, 12, 5, 1.25, 1, 2, z=0.1, padding=3),
        run("SwitchTies", "switch", 1, 24, 3, 1.0, 1, 3, ties=True),
        run("SwitchEvaluationHasNoZ", "switch", 2, 10, 4, 2.0, 4, 4, train=False, z=0.1, padding=2),
        run("SwitchOneExpert", "switch", 2, 8, 1, 1.0, 1, 5, padding=1),
        run("Top2All", "top_2", 2, 12, 4, 1.0, 2, 6, z=0.1),
        run("Top2ThresholdPadded", "top_2", 2, 15, 5, 1.0, 2, 7, second="threshold", padding=3),
        run("Top2None", "top_2", 1, 12, 3, 1.5, 1, 8, second="none", train=False),
        run("Top2OneExpert", "top_2", 1, 6, 1, 0.5, 1, 9),
        run("Top2Underflow", "top_2", 2, 8, 3, 1.0, 2, 10, scale=150.0),
        run("NtlbRounds", "ntlb", 2, 12, 4, 1.0, 2, 11),
        run("NtlbPadded", "ntlb", 2, 14, 5, 0.75, 1, 12, padding=2, z=0.1),
        run("NtlbFourRounds", "ntlb", 1, 20, 4, 0.8, 1, 13, ntlb_k=4),
        run("NtlbUnderflow", "ntlb", 1, 8, 3, 1.0, 1, 14, scale=150.0),
    ]
    groups = [[n, largest, ranks, *moe._split_into_groups(n, largest, ranks)]
              for n, largest, ranks in
              [(1024, 1024, 1), (1000, 300, 1), (24, 1024, 1), (40, 1024, 4), (24, 1024, 4),
               (2048, 500, 4), (600, 64, 3), (7, 2, 1), (6, 100, 6), (65536, 8192, 16)]]
    print(json.dumps(dict(
        origin="Mesh TensorFlow 0.1.21 on TensorFlow 2.15.1, float32 on a CPU; make_moe_mesh.py",
        cases=cases, groups=groups), separators=(",", ":")))


main()
