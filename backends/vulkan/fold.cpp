#include "backends/vulkan/fold.h"

#include "backends/vulkan/kernels.h"
#include "backends/vulkan/layout.h"

namespace quant {
namespace vulkan {
namespace {

bool aligned(const Slice& slice) {
    return address_of(slice) % 16 == 0;
}

bool takes_folded(const Bound& b) {
    return (b.node.op == Op::linear || b.node.op == Op::linear_add) && b.kernel->weights == &layout_lanes8 &&
           b.in[0].type == ValueType::f32 && b.node.weight->format.group % 4 == 0;
}

bool folds_producer(const std::vector<Bound>& nodes, const Bound& producer, const Bound& linear, bool few) {
    if (linear.node.in[0] != producer.node.out || readers(nodes, producer.node.out) != 1) return false;
    const Operand& x = producer.in[0];
    if (x.cols % 4 != 0 || x.stride % 4 != 0 || !aligned(x.data)) return false;
    // What the producer reads may be free when the linear writes, whose workgroups would read what others have written;
    // with many rows one dispatch reads it before another writes.
    if (producer.node.op == Op::rmsnorm)
        return aligned(producer.node.weight->data) && !(few && overlap(x.data, linear.out.data));
    return producer.node.op == Op::silu_mul && !few && producer.in[1].stride == x.stride &&
           aligned(producer.in[1].data);
}

bool folds_silu(const std::vector<Bound>& nodes, const Bound& linear, const Operand& input, const Bound& silu) {
    const int64_t half = linear.node.weight->rows / 2;
    const Slice &y = linear.out.data, &gate = silu.in[0].data, &up = silu.in[1].data;
    return linear.node.op == Op::linear && silu.node.op == Op::silu_mul && !linear.node.weight->bias.buffer &&
           silu.in[0].cols == half && silu.in[1].cols == half && linear.node.weight->rows == 2 * half &&
           gate.buffer == y.buffer && gate.offset == y.offset && up.buffer == y.buffer &&
           up.offset == y.offset + 4 * static_cast<size_t>(half) && readers(nodes, silu.node.in[0]) == 1 &&
           readers(nodes, silu.node.in[1]) == 1 && readers(nodes, linear.node.out) == 0 &&
           static_cast<const DeviceBuffer*>(linear.node.weight->data.buffer)->whole() &&
           !overlap(silu.out.data, input.data);
}

// A workgroup reads its own heads of q before it writes the result, which may lie in the same place then.
bool folds_rope(const std::vector<Bound>& nodes, const Bound& rope, const Bound& attention) {
    if (rope.node.op != Op::rope_cache_write || rope.node.out != attention.node.in[0] ||
        rope.node.layer != attention.node.layer || readers(nodes, rope.node.out) != 1)
        return false;
    const Slice &result = attention.out.data, &q = rope.in[0].data;
    for (int i : {1, 2, 3})
        if (overlap(rope.in[i].data, result)) return false;
    return !overlap(q, result) || (q.buffer == result.buffer && q.offset == result.offset);
}

}  // namespace

std::vector<Folded> fold(const std::vector<Bound>& nodes, int max_rows) {
    std::vector<Folded> folded(nodes.size());
    const bool few = max_rows <= vector_rows;
    for (size_t i = 0; i < nodes.size(); ++i) {
        const Bound& bound = nodes[i];
        if (bound.node.op == Op::attention && i > 0 && attends_one_row(bound.node, max_rows) &&
            folds_rope(nodes, nodes[i - 1], bound)) {
            folded[i].rope = &nodes[i - 1];
            folded[i - 1].away = true;
        }
        const bool many = !few && bound.kernel->rounds_to && bound.out.rows == Rows::step;  // by matrices
        if (!takes_folded(bound) || !(few || many)) continue;
        if (i > 0 && folds_producer(nodes, nodes[i - 1], bound, few)) {
            folded[i].producer = &nodes[i - 1];
            folded[i - 1].away = true;
        }
        const Operand& input = folded[i].producer ? folded[i].producer->in[0] : bound.in[0];
        if (few && i + 1 < nodes.size() && folds_silu(nodes, bound, input, nodes[i + 1])) {
            folded[i].silu = &nodes[i + 1];
            folded[i + 1].away = true;
        }
    }
    return folded;
}

Bound with_folded(const Bound& node, const Folded& folded) {
    Bound b = node;
    if (const Bound* producer = folded.producer) {  // a linear has two operands at most
        for (int i : {0, 1}) {
            b.node.in[2 * i] = producer->node.in[i];
            b.in[2 * i] = producer->in[i];
        }
    }
    if (const Bound* rope = folded.rope) {
        for (int i = 0; i < 4; ++i) {
            b.node.in[i] = rope->node.in[i];
            b.in[i] = rope->in[i];
        }
    }
    if (folded.silu) {
        b.node.out = folded.silu->node.out;
        b.out = folded.silu->out;
    }
    return b;
}

}  // namespace vulkan
}  // namespace quant
