// What to compute: values, nodes in execution order, and the weights they use. Row counts are symbolic: a graph is
// built once per model and planned for several numbers of rows (core/plan.h).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/scheme.h"

namespace quant {

struct Weight;  // core/backend.h

// One activation matrix, a row per token. s8 and e4m3 are quantized per row: see RowScale below.
enum class ValueType : uint8_t { f32, s8, e4m3 };
enum class Rows : uint8_t { step, outputs };  // every token of the step, or only those whose logits are wanted

struct Value {
    ValueType type = ValueType::f32;
    Rows rows = Rows::step;
    int64_t cols = 0;
    int parent = -1;  // >= 0: columns [offset, offset + cols) of that f32 value
    int64_t offset = 0;
};

// Memory of a quantized value of at most `rows` rows: codes [rows][round_up(cols, 64)], the padding zero, then
// RowScale[rows]. Memory of an f32 value: [rows][cols].
struct RowScale {
    float scale;  // value = code * scale
    int32_t sum;  // s8: sum of the row's codes; e4m3: 0
};
inline int64_t codes_stride(int64_t cols) {
    return (cols + 63) / 64 * 64;
}

// How the cache keeps keys and values. s8 and e4m3: codes, and one f16 scale per position and KV head (CacheShape in
// core/backend.h says where, and how they are rounded).
enum class CacheKind : uint8_t { f16, s8, e4m3 };
const char* cache_kind_name(CacheKind kind);
bool cache_kind_parse(const std::string& name, CacheKind* out);

enum class Op : uint8_t {
    embed,        // out = rows of weight (the embedding table) chosen by the step's tokens
    rope_angles,  // out[row, 2i], [row, 2i+1] = cos, sin of float(position) * weight[i]; cols = head_dim
    rmsnorm,      // out = in0 * rsqrt(mean(in0^2) + eps) * weight
    quantize,     // out (s8 or e4m3) = in0 rounded as Activation says
    linear,       // out = in0 * weight^T + bias
    rope,         // out = in0 (heads x head_dim) turned by in1 (rope_angles)
    cache_write,  // cache[layer] at the rows' positions = in0 (k), in1 (v), as Node::cache says
    attention,    // out = softmax(scale * in0 . K^T) V over the row's sequence, causal, `window` positions (0 = all)
    silu_mul,     // out = in0 / (1 + exp(-in0)) * in1
    add,          // out = in0 + in1
    select_rows,  // out (Rows::outputs) = the step's output rows of in0
    top_k,        // out = (value, column) of in0's out.cols / 2 largest, largest first, among equals the lowest column
                  // first; NaN is less than all
    // Fused; the reference is the sequence of the parts.
    rmsnorm_quantize,   // rmsnorm, quantize
    silu_mul_quantize,  // silu_mul, quantize
    linear_add,         // linear, then + in1
    rope_cache_write,   // out = rope(in0 = q, in3); cache = rope(in1 = k, in3), in2 = v
    count_
};
const char* op_name(Op op);

struct Node {
    Op op{};
    int in[4] = {-1, -1, -1, -1};
    int out = -1;  // -1: cache_write
    const Weight* weight = nullptr;
    float eps = 0;                              // rmsnorm
    int layer = 0;                              // cache ops: index among the cache's layers
    int heads = 0, kv_heads = 0, head_dim = 0;  // rope (heads of in0), cache ops, attention
    CacheKind cache = CacheKind::f16;           // cache ops, attention
    int window = 0;                             // attention
    float scale = 1;                            // attention
    bool adjacent_pairs = false;                // rope turns (2i, 2i+1); else (i, i + head_dim/2)
};

struct Graph {
    std::vector<Value> values;
    std::vector<Node> nodes;
    int input = -1;   // f32 value written before the run (hidden state from an earlier stage), or -1
    int output = -1;  // value read after the run
    // The output rows' most likely tokens, (logit, id) side by side: what the last node, a top_k, makes of `output` in
    // plans that are to (PlanShape::top). -1: none.
    int choice = -1;

    int value(ValueType type, Rows rows, int64_t cols);
    int view(int parent, int64_t offset, int64_t cols);
    int root(int value) const { return values[value].parent < 0 ? value : values[value].parent; }
};

}  // namespace quant
