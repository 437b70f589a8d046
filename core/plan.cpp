#include "core/plan.h"

#include <algorithm>
#include <numeric>

#include "formats/error.h"

namespace quant {
namespace {

constexpr size_t alignment = 64;
size_t align(size_t n) {
    return (n + alignment - 1) / alignment * alignment;
}

int rows_of(const Value& v, const PlanShape& shape) {
    return v.rows == Rows::outputs ? shape.max_outputs : shape.max_rows;
}

struct Lifetime {
    int first = -1, last = -1;  // node indices
};

std::vector<Lifetime> lifetimes(const Graph& graph) {
    std::vector<Lifetime> life(graph.values.size());
    auto touch = [&](int value, int when) {
        Lifetime& l = life[graph.root(value)];
        if (l.first < 0) l.first = when;
        l.last = std::max(l.last, when);
    };
    if (graph.input >= 0) touch(graph.input, 0);
    const int n = static_cast<int>(graph.nodes.size());
    for (int i = 0; i < n; ++i) {
        for (int in : graph.nodes[i].in)
            if (in >= 0) touch(in, i);
        if (graph.nodes[i].out >= 0) touch(graph.nodes[i].out, i);
    }
    if (graph.output >= 0) touch(graph.output, n);
    if (graph.choice >= 0) touch(graph.choice, n);
    return life;
}

Operand operand(const Graph& graph, const MemoryPlan& memory, const PlanShape& shape, Buffer* arena, int id) {
    const Value& v = graph.values[id];
    const Value& root = graph.values[graph.root(id)];
    Operand o;
    o.type = v.type;
    o.rows = v.rows;
    o.cols = v.cols;
    o.data = {arena, memory.offsets[id], value_bytes(root, rows_of(root, shape))};
    if (v.type == ValueType::f32) {
        o.stride = root.cols;
        o.data.offset += v.offset * sizeof(float);
        o.data.bytes -= v.offset * sizeof(float);
    } else {
        o.stride = codes_stride(v.cols);
        o.row_scales = static_cast<size_t>(o.stride) * rows_of(v, shape);
    }
    return o;
}

}  // namespace

size_t value_bytes(const Value& v, int max_rows) {
    const size_t rows = max_rows;
    if (v.type == ValueType::f32) return align(rows * v.cols * sizeof(float));
    return align(rows * codes_stride(v.cols) + rows * sizeof(RowScale));
}

MemoryPlan plan_memory(const Graph& graph, const PlanShape& shape) {
    const std::vector<Lifetime> life = lifetimes(graph);
    const size_t n = graph.values.size();
    std::vector<size_t> bytes(n, 0);
    std::vector<int> order;
    for (size_t i = 0; i < n; ++i) {
        if (graph.values[i].parent >= 0 || life[i].first < 0) continue;
        bytes[i] = value_bytes(graph.values[i], rows_of(graph.values[i], shape));
        order.push_back(static_cast<int>(i));
    }
    // Largest first, each at the lowest offset that no value alive at the same time uses.
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return bytes[a] > bytes[b]; });
    MemoryPlan plan;
    plan.offsets.assign(n, 0);
    std::vector<int> placed;
    for (int id : order) {
        std::vector<std::pair<size_t, size_t>> taken;
        for (int other : placed)
            if (life[other].first <= life[id].last && life[id].first <= life[other].last)
                taken.emplace_back(plan.offsets[other], plan.offsets[other] + bytes[other]);
        std::sort(taken.begin(), taken.end());
        size_t at = 0;
        for (const auto& [begin, end] : taken) {
            if (at + bytes[id] <= begin) break;
            at = std::max(at, end);
        }
        plan.offsets[id] = at;
        plan.bytes = std::max(plan.bytes, at + bytes[id]);
        placed.push_back(id);
    }
    for (size_t i = 0; i < n; ++i)
        if (graph.values[i].parent >= 0) plan.offsets[i] = plan.offsets[graph.values[i].parent];
    return plan;
}

std::vector<Bound> bind(const Graph& graph, const MemoryPlan& memory, const PlanShape& shape, const Backend& backend,
                        Buffer* arena) {
    std::vector<Bound> bound;
    bound.reserve(graph.nodes.size());
    for (const Node& node : graph.nodes) {
        const bool chooses = node.out >= 0 && node.out == graph.choice;
        if (chooses && shape.top == 0) continue;
        Bound b;
        b.node = node;
        for (int i = 0; i < 4; ++i)
            if (node.in[i] >= 0) b.in[i] = operand(graph, memory, shape, arena, node.in[i]);
        if (node.out >= 0) b.out = operand(graph, memory, shape, arena, node.out);
        if (chooses) b.out.cols = 2 * static_cast<int64_t>(shape.top);
        b.kernel =
            find_kernel(backend, node.op, node, node.weight, node.in[0] >= 0 ? &graph.values[node.in[0]] : nullptr,
                        node.out >= 0 ? &graph.values[node.out] : nullptr);
        if (!b.kernel) {
            std::string what = op_name(node.op);
            if (node.weight) what += " of " + node.weight->name + " in " + format_name(node.weight->format);
            const bool cached = node.op == Op::cache_write || node.op == Op::attention;
            if (cached) what += std::string(" with a cache of type ") + cache_kind_name(node.cache);
            fail(QUANT_ERR_UNSUPPORTED, backend.name() + " has no kernel for " + what +
                                            ": choose another --device or " + (cached ? "--kv" : "--scheme"));
        }
        bound.push_back(b);
    }
    return bound;
}

}  // namespace quant
