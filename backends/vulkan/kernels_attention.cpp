// rope, the cache's write, attention.
#include <algorithm>
#include <numeric>

#include "backends/vulkan/kernels.h"
#include "formats/error.h"

namespace quant {
namespace vulkan {
namespace {

constexpr uint32_t threads = 128;

// ---- rope and the cache's write ------------------------------------------------------------------------------------

CacheShape one_layer(const Node& node) {
    CacheShape shape;
    shape.layers = 1;
    shape.kv_heads = node.kv_heads;
    shape.head_dim = node.head_dim;
    shape.kind = node.cache;
    return shape;
}

// Where the node's layer begins in a page, in 4 bytes.
uint32_t layer_at(const Node& node) {
    return static_cast<uint32_t>(node.layer * one_layer(node).layer_bytes() / 4);
}

struct RopePush {
    VkDeviceAddress block, q, k, v, angles, result;
    uint32_t max_rows, heads, kv_heads, dim;
    uint32_t q_stride, k_stride, v_stride, angle_stride, result_stride;
    uint32_t layer_at, values_at;
};

struct CachePush {
    VkDeviceAddress block, k, v, angles;
    uint32_t max_rows, kv_heads, k_stride, v_stride, angle_stride, layer_at;
};

void emit_cache_quantize(Recorder& recorder, const Node& node, const Operand& k, const Operand& v,
                         const Operand* angles) {
    CachePush push{};
    push.block = recorder.step_address(0);
    push.k = address_of(k.data);
    push.v = address_of(v.data);
    if (angles) push.angles = address_of(angles->data);
    push.max_rows = static_cast<uint32_t>(recorder.max_rows);
    push.kv_heads = static_cast<uint32_t>(node.kv_heads);
    push.k_stride = static_cast<uint32_t>(k.stride);
    push.v_stride = static_cast<uint32_t>(v.stride);
    if (angles) push.angle_stride = static_cast<uint32_t>(angles->stride);
    push.layer_at = layer_at(node);
    recorder.dispatch(Shader::cache_quantize,
                      {64, angles ? 1u : 0u, node.adjacent_pairs ? 1u : 0u, static_cast<uint32_t>(node.cache),
                       static_cast<uint32_t>(node.head_dim)},
                      push, 2 * push.kv_heads, push.max_rows);
}

void emit_rope_or_write(Recorder& recorder, const Node& node, const Operand* q, const Operand* k, const Operand* v,
                        const Operand* angles, const Operand* out) {
    if (k && node.cache != CacheKind::f16) {
        emit_cache_quantize(recorder, node, *k, *v, angles);
        if (!q) return;
        k = v = nullptr;
    }
    RopePush push{};
    push.block = recorder.step_address(0);
    push.max_rows = static_cast<uint32_t>(recorder.max_rows);
    push.dim = static_cast<uint32_t>(node.head_dim);
    auto take = [](const Operand* o, VkDeviceAddress* address, uint32_t* stride) {
        if (!o) return;
        *address = address_of(o->data);
        *stride = static_cast<uint32_t>(o->stride);
    };
    take(q, &push.q, &push.q_stride);
    take(k, &push.k, &push.k_stride);
    take(v, &push.v, &push.v_stride);
    take(angles, &push.angles, &push.angle_stride);
    take(out, &push.result, &push.result_stride);
    if (q) push.heads = static_cast<uint32_t>(node.heads);
    if (k) {
        push.kv_heads = static_cast<uint32_t>(node.kv_heads);
        push.layer_at = layer_at(node);
        push.values_at = static_cast<uint32_t>(one_layer(node).values(0) / 4);
    }
    const int64_t items = int64_t{push.heads + 2 * push.kv_heads} * node.head_dim / 2;
    recorder.dispatch(Shader::rope, {threads, angles ? 1u : 0u, node.adjacent_pairs ? 1u : 0u}, push,
                      divide_up(items, threads), static_cast<uint32_t>(recorder.max_rows));
}

void emit_rope(quant::Recorder& base, const Bound& b) {
    emit_rope_or_write(recorder_of(base), b.node, &b.in[0], nullptr, nullptr, &b.in[1], &b.out);
}
void emit_cache_write(quant::Recorder& base, const Bound& b) {
    emit_rope_or_write(recorder_of(base), b.node, nullptr, &b.in[0], &b.in[1], nullptr, nullptr);
}
void emit_rope_cache_write(quant::Recorder& base, const Bound& b) {
    emit_rope_or_write(recorder_of(base), b.node, &b.in[0], &b.in[1], &b.in[2], &b.in[3], &b.out);
}

// ---- attention ------------------------------------------------------------------------------------------------------

struct AttentionPush {
    VkDeviceAddress block, q, result, parts;
    uint32_t max_rows, slot, heads, kv_heads;
    uint32_t q_stride, result_stride, layer_at, max_splits;
    uint32_t window;
    float scale;
};
struct CombinePush {
    VkDeviceAddress block, result, parts;
    uint32_t slot, heads, dim, result_stride, max_splits;
};

struct AttentionRowPush {
    VkDeviceAddress block, q, k, v, angles, result, parts;
    uint32_t slot, kv_heads, layer_at, max_splits;
    uint32_t window, counters_at;
    float scale;
};

constexpr int most_queries = 8;          // that share a workgroup's keys and values
constexpr int most_query_floats = 2048;  // of shared memory
constexpr int most_splits = 16, decode_rows = 8;
constexpr int matrix_rows = 64, matrix_most_dim = 128;  // of attention_cooperative.comp
constexpr MatrixShape attention_shape = {16, 16, 16};

// A word of a quantized cache holds four columns of a value.
bool takes_cache(const Node& node, const Weight*, const Value*, const Value*) {
    return node.head_dim % (node.cache == CacheKind::f16 ? 2 : 4) == 0 && node.head_dim <= 1024;
}
bool takes_attention(const Node& node, const Weight*, const Value*, const Value*) {
    if (!takes_cache(node, nullptr, nullptr, nullptr)) return false;
    return node.head_dim % 8 == 0 ? node.head_dim <= 1024 : node.head_dim % 2 == 0 && node.head_dim <= 256;
}

// Queries and weights rounded to f16.
bool takes_matrices(const Node& node, const Weight*, const Value*, const Value*) {
    return node.cache == CacheKind::f16 && node.head_dim % 16 == 0 && node.head_dim <= matrix_most_dim;
}

AttentionPush push_of(Recorder& recorder, const Bound& b, const AttentionSlot& slot) {
    const Node& node = b.node;
    AttentionPush push{};
    push.block = recorder.step_address(0);
    push.q = address_of(b.in[0].data);
    push.result = address_of(b.out.data);
    push.max_rows = static_cast<uint32_t>(recorder.max_rows);
    push.slot = static_cast<uint32_t>(recorder.slot(slot));
    push.heads = static_cast<uint32_t>(node.heads);
    push.kv_heads = static_cast<uint32_t>(node.kv_heads);
    push.q_stride = static_cast<uint32_t>(b.in[0].stride);
    push.result_stride = static_cast<uint32_t>(b.out.stride);
    push.layer_at = layer_at(node);
    push.max_splits = static_cast<uint32_t>(slot.max_splits);
    push.window = static_cast<uint32_t>(node.window);
    push.scale = node.scale;
    return push;
}
int slot_at(const AttentionPush& push) {
    return step_slots + slot_ints * static_cast<int>(push.slot);
}

void emit_attention_row(Recorder& recorder, const Bound& b) {
    const Node& node = b.node;
    const PhysicalDevice& device = recorder.device.physical;
    const Bound* rope = recorder.folded().rope;
    const int heads = node.heads / node.kv_heads;
    AttentionSlot slot;
    slot.head_tiles = node.kv_heads;
    slot.heads = node.heads;
    slot.max_splits = most_splits;
    slot.wanted_workgroups = device.is_cpu ? 64 : 1024;
    AttentionRowPush push{};
    push.block = recorder.step_address(0);
    push.q = address_of(b.in[0].data);
    if (rope) {
        push.k = address_of(b.in[1].data);
        push.v = address_of(b.in[2].data);
        push.angles = address_of(b.in[3].data);
    }
    push.result = address_of(b.out.data);
    push.parts = recorder.workspace(size_t{4} * node.heads * most_splits * (node.head_dim + 2));
    push.slot = static_cast<uint32_t>(recorder.slot(slot));
    push.kv_heads = static_cast<uint32_t>(node.kv_heads);
    push.layer_at = layer_at(node);
    push.max_splits = most_splits;
    push.window = static_cast<uint32_t>(node.window);
    push.counters_at = static_cast<uint32_t>(step_counters_at(recorder.max_rows));
    push.scale = node.scale;
    recorder.dispatch_indirect(Shader::attention_row,
                               {threads, static_cast<uint32_t>(node.head_dim), static_cast<uint32_t>(heads),
                                rope ? 1u : 0u, rope && rope->node.adjacent_pairs ? 1u : 0u},
                               push, step_slots + slot_ints * static_cast<int>(push.slot));
}

void emit_attention(quant::Recorder& base, const Bound& b) {
    Recorder& recorder = recorder_of(base);
    const Node& node = b.node;
    if (attends_one_row(node, recorder.max_rows)) return emit_attention_row(recorder, b);
    const bool decode = recorder.max_rows <= decode_rows;
    const int queries = std::max(1, std::min(most_queries, most_query_floats / node.head_dim));
    int tile_heads = 1;  // of one key head
    for (int n = 1; n <= queries; ++n)
        if (node.heads / node.kv_heads % n == 0) tile_heads = n;
    AttentionSlot slot;
    slot.tile_rows = decode ? 1 : queries / tile_heads;
    slot.head_tiles = node.heads / tile_heads;
    slot.heads = node.heads;
    slot.max_splits = decode ? most_splits : 1;
    slot.wanted_workgroups = recorder.device.physical.is_cpu ? 64 : 1024;

    AttentionPush push = push_of(recorder, b, slot);
    if (decode)
        push.parts = recorder.workspace(size_t{4} * recorder.max_rows * node.heads * most_splits * (node.head_dim + 2));
    // Few queries of little work each: more invocations hide each other's latency.
    const bool wide = decode && tile_heads * slot.tile_rows <= 2;
    const uint32_t most = node.head_dim <= 256 ? 512 : 256;  // within 32 KiB of shared memory
    recorder.dispatch_indirect(
        Shader::attention,
        {wide ? std::min(recorder.device.physical.workgroup_threads, most) : threads,
         static_cast<uint32_t>(node.head_dim), static_cast<uint32_t>(slot.tile_rows), static_cast<uint32_t>(tile_heads),
         node.head_dim % 8 == 0 ? 8u : 2u, static_cast<uint32_t>(node.cache)},
        push, slot_at(push));
    if (!decode) return;
    recorder.barrier();
    CombinePush combine{};
    combine.block = push.block;
    combine.result = push.result;
    combine.parts = push.parts;
    combine.slot = push.slot;
    combine.heads = push.heads;
    combine.dim = static_cast<uint32_t>(node.head_dim);
    combine.result_stride = push.result_stride;
    combine.max_splits = push.max_splits;
    recorder.dispatch_indirect(Shader::attention_combine, {threads}, combine, slot_at(push) + 4);
}

// Plans of many rows; the others as emit_attention.
void emit_attention_matrices(quant::Recorder& base, const Bound& b) {
    Recorder& recorder = recorder_of(base);
    if (recorder.max_rows <= decode_rows) return emit_attention(base, b);
    AttentionSlot slot;
    slot.tile_rows = matrix_rows;
    slot.head_tiles = slot.heads = b.node.heads;
    const AttentionPush push = push_of(recorder, b, slot);
    recorder.dispatch_indirect(
        Shader::attention_cooperative,
        {static_cast<uint32_t>(b.node.head_dim), attention_shape.m, attention_shape.n, attention_shape.k}, push,
        slot_at(push));
}

bool takes_heads(const Node& node, const Weight*, const Value*, const Value*) {
    return node.head_dim % 2 == 0;
}

}  // namespace

bool attends_one_row(const Node& node, int max_rows) {
    const int heads = node.heads / node.kv_heads;
    return max_rows == 1 && node.cache == CacheKind::f16 && node.head_dim % 8 == 0 && node.head_dim <= 256 &&
           heads <= most_queries && heads * node.head_dim <= most_query_floats;
}

void append_attention_kernels(std::vector<Kernel>& table, const PhysicalDevice& device, bool exact) {
    if (device.float_matrices == attention_shape && !exact)
        table.push_back({"attention f16", Op::attention, nullptr, takes_matrices, emit_attention_matrices, "f16"});
    const Kernel kernels[] = {
        {"rope", Op::rope, nullptr, takes_heads, emit_rope},
        {"cache_write", Op::cache_write, nullptr, takes_cache, emit_cache_write},
        {"rope_cache_write", Op::rope_cache_write, nullptr, takes_cache, emit_rope_cache_write},
        {"attention", Op::attention, nullptr, takes_attention, emit_attention},
    };
    table.insert(table.end(), std::begin(kernels), std::end(kernels));
}

}  // namespace vulkan
}  // namespace quant
