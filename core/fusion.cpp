#include "core/fusion.h"

#include <algorithm>

namespace quant {
namespace {

struct Context {
    Graph& graph;
    const Backend& backend;
    const MergeWeights& merge;

    // Nodes that read `value` or a view of it.
    int readers(int value) const {
        int n = 0;
        for (const Node& node : graph.nodes)
            for (int in : node.in) n += in >= 0 && graph.root(in) == value;
        return n + (graph.output >= 0 && graph.root(graph.output) == value);
    }
    // The node that writes `value`, or -1.
    int writer(int value) const {
        for (size_t i = 0; i < graph.nodes.size(); ++i)
            if (graph.nodes[i].out == value) return static_cast<int>(i);
        return -1;
    }
    bool has_kernel(const Node& node) const {
        const Value* in0 = node.in[0] >= 0 ? &graph.values[node.in[0]] : nullptr;
        const Value* out = node.out >= 0 ? &graph.values[node.out] : nullptr;
        return find_kernel(backend, node.op, node, node.weight, in0, out) != nullptr;
    }
    void erase(int node) { graph.nodes.erase(graph.nodes.begin() + node); }
};

// y1 = linear(x, W1), y2 = linear(x, W2), ...  ->  [y1 y2 ...] = linear(x, [W1; W2; ...])
bool merge_linears(Context& c, int index) {
    const Node first = c.graph.nodes[index];
    if (first.op != Op::linear || c.graph.values[first.out].parent >= 0) return false;
    const Value* in0 = &c.graph.values[first.in[0]];
    const Kernel* kernel = find_kernel(c.backend, Op::linear, first, first.weight, in0, &c.graph.values[first.out]);
    if (!kernel || !kernel->weights || kernel->weights->tile_rows == 0) return false;
    std::vector<int> members;
    std::vector<const Weight*> weights;
    for (int i = index; i < static_cast<int>(c.graph.nodes.size()); ++i) {
        const Node& node = c.graph.nodes[i];
        if (node.op != Op::linear || node.in[0] != first.in[0] || c.graph.values[node.out].parent >= 0) continue;
        const Weight& w = *node.weight;
        if (w.format != first.weight->format || w.activation != first.weight->activation) continue;
        if (w.rows % kernel->weights->tile_rows != 0) continue;
        members.push_back(i);
        weights.push_back(&w);
    }
    if (members.size() < 2 || members[0] != index) return false;
    const Weight* merged = c.merge(weights);
    if (!merged) return false;

    const int out = c.graph.value(ValueType::f32, c.graph.values[first.out].rows, merged->rows);
    int64_t offset = 0;
    for (int i : members) {
        Value& v = c.graph.values[c.graph.nodes[i].out];
        v.parent = out;
        v.offset = offset;
        offset += v.cols;
    }
    c.graph.nodes[index].weight = merged;
    c.graph.nodes[index].out = out;
    for (size_t i = members.size(); i-- > 1;) c.erase(members[i]);
    return true;
}

// h = rmsnorm(x) or silu_mul(g, u); q = quantize(h), h read by nothing else  ->  one op
bool fold_quantize(Context& c, int index) {
    const Node quantize = c.graph.nodes[index];
    if (quantize.op != Op::quantize || c.readers(quantize.in[0]) != 1) return false;
    const int producer = c.writer(quantize.in[0]);
    if (producer < 0) return false;
    Node fused = c.graph.nodes[producer];
    if (fused.op == Op::rmsnorm)
        fused.op = Op::rmsnorm_quantize;
    else if (fused.op == Op::silu_mul)
        fused.op = Op::silu_mul_quantize;
    else
        return false;
    fused.out = quantize.out;
    if (!c.has_kernel(fused)) return false;
    c.graph.nodes[index] = fused;
    c.erase(producer);
    return true;
}

// y = linear(x, W); z = y + r, y read by nothing else  ->  z = linear_add(x, W, r)
bool fold_add(Context& c, int index) {
    const Node add = c.graph.nodes[index];
    if (add.op != Op::add) return false;
    for (int side = 0; side < 2; ++side) {
        const int y = add.in[side], producer = c.writer(y);
        if (producer < 0 || c.graph.nodes[producer].op != Op::linear || c.readers(y) != 1) continue;
        Node fused = c.graph.nodes[producer];
        fused.op = Op::linear_add;
        fused.in[1] = add.in[1 - side];
        fused.out = add.out;
        if (!c.has_kernel(fused)) continue;
        c.graph.nodes[index] = fused;
        c.erase(producer);
        return true;
    }
    return false;
}

// q' = rope(q), k' = rope(k), cache_write(k', v), k' read by nothing else  ->  q' = rope_cache_write(q, k, v)
bool fold_rope(Context& c, int index) {
    const Node write = c.graph.nodes[index];
    if (write.op != Op::cache_write || c.readers(write.in[0]) != 1) return false;
    const int k_rope = c.writer(write.in[0]);
    if (k_rope < 0 || c.graph.nodes[k_rope].op != Op::rope) return false;
    for (int q_rope = 0; q_rope < index; ++q_rope) {
        const Node& q = c.graph.nodes[q_rope];
        if (q_rope == k_rope || q.op != Op::rope || q.layer != write.layer) continue;
        Node fused = q;
        fused.op = Op::rope_cache_write;
        fused.in[0] = q.in[0];
        fused.in[1] = c.graph.nodes[k_rope].in[0];
        fused.in[2] = write.in[1];
        fused.in[3] = q.in[1];
        fused.kv_heads = write.kv_heads;
        if (!c.has_kernel(fused)) return false;
        c.graph.nodes[index] = fused;
        c.erase(std::max(q_rope, k_rope));
        c.erase(std::min(q_rope, k_rope));
        return true;
    }
    return false;
}

constexpr bool (*rules[])(Context&, int) = {merge_linears, fold_quantize, fold_add, fold_rope};

}  // namespace

void fuse(Graph& graph, const Backend& backend, const MergeWeights& merge) {
    Context context{graph, backend, merge};
    for (auto rule : rules)
        for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i)
            if (rule(context, i)) i = -1;  // indices moved: look at the whole graph again
}

}  // namespace quant
