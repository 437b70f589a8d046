#include "backends/cuda/arguments.h"

namespace quant {
namespace cuda {
namespace {

CachePlaces cache_places(const Node& n) {
    const CacheShape one_layer = {1, n.kv_heads, n.head_dim, n.cache};
    CachePlaces p{};
    p.kind = n.cache;
    p.layer_at = static_cast<int64_t>(n.layer * one_layer.layer_bytes());
    p.head_bytes = static_cast<int64_t>(one_layer.head_bytes());
    p.values_at = static_cast<int64_t>(one_layer.values(0));
    p.key_scales_at = static_cast<int64_t>(one_layer.key_scales(0));
    p.value_scales_at = static_cast<int64_t>(one_layer.value_scales(0));
    return p;
}

void set_operand(const Operand& o, const float*& pointer, int64_t& stride) {
    pointer = f32_pointer(o);
    stride = o.stride;
}

}  // namespace

AttentionArguments attention_arguments(const Bound& b) {
    const Node& n = b.node;
    AttentionArguments a{};
    set_operand(b.in[0], a.q, a.q_stride);
    a.out = f32_pointer(b.out);
    a.out_stride = b.out.stride;
    a.heads = n.heads;
    a.kv_heads = n.kv_heads;
    a.head_dim = n.head_dim;
    a.window = n.window;
    a.scale = n.scale;
    a.cache = cache_places(n);
    return a;
}

RopeArguments rope_arguments(const Bound& b) {
    const Node& n = b.node;
    RopeArguments a{};
    a.heads = n.heads;
    a.kv_heads = n.kv_heads;
    a.head_dim = n.head_dim;
    a.adjacent = n.adjacent_pairs;
    a.cache = cache_places(n);
    if (n.out >= 0) {
        a.out = f32_pointer(b.out);
        a.out_stride = b.out.stride;
    }
    if (n.op == Op::rope || n.op == Op::rope_cache_write) set_operand(b.in[0], a.q, a.q_stride);
    if (n.op == Op::rope) set_operand(b.in[1], a.angles, a.angles_stride);
    if (n.op == Op::cache_write) {
        set_operand(b.in[0], a.k, a.k_stride);
        set_operand(b.in[1], a.v, a.v_stride);
    }
    if (n.op == Op::rope_cache_write) {
        a.turn_k = true;
        set_operand(b.in[1], a.k, a.k_stride);
        set_operand(b.in[2], a.v, a.v_stride);
        set_operand(b.in[3], a.angles, a.angles_stride);
    }
    return a;
}

Table embedding_table(const Weight& w) {
    const StoredOffsets at = stored_offsets(w.format, w.rows, w.cols);
    const uint8_t* data = device_pointer(w.data);
    Table t{data, data + at.scales, data + at.zeros, w.format, w.rows, w.cols, 0, 0, 0};
    t.row_bytes = static_cast<int64_t>(codes_row_bytes(w.format, w.cols));
    t.groups = groups_per_row(w.format, w.cols);
    if (w.format.storage == Storage::ggml)
        t.block_bytes = static_cast<int64_t>(
            codes_row_bytes(w.format, w.format.super_group ? w.format.super_group : w.format.group));
    return t;
}

}  // namespace cuda
}  // namespace quant
