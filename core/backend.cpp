#include "core/backend.h"

namespace quant {

const Kernel* find_kernel(const Backend& backend, Op op, const Node& node, const Weight* weight, const Value* in0,
                          const Value* out) {
    for (const Kernel& kernel : backend.kernels()) {
        if (kernel.op != op) continue;
        if (kernel.weights && weight && weight->layout && kernel.weights != weight->layout) continue;
        if (kernel.accepts(node, weight, in0, out)) return &kernel;
    }
    return nullptr;
}

const Kernel* find_linear(const Backend& backend, const Format& format, Activation activation, int64_t rows,
                          int64_t cols) {
    Weight w;
    w.format = format;
    w.activation = activation;
    w.rows = rows;
    w.cols = cols;
    Node node;
    node.op = Op::linear;
    node.weight = &w;
    const ValueType type = activation == Activation::s8     ? ValueType::s8
                           : activation == Activation::e4m3 ? ValueType::e4m3
                                                            : ValueType::f32;
    const Value in{type, Rows::step, cols, -1, 0}, out{ValueType::f32, Rows::step, rows, -1, 0};
    return find_kernel(backend, Op::linear, node, &w, &in, &out);
}

bool overlap(const Slice& a, const Slice& b) {
    return a.buffer == b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

int readers(const std::vector<Bound>& nodes, int value) {
    int n = 0;
    for (const Bound& b : nodes)
        for (int in : b.node.in) n += in == value;
    return n;
}

}  // namespace quant
