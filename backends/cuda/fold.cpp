#include "backends/cuda/fold.h"

#include "backends/cuda/layouts.h"
#include "backends/cuda/linear.h"

namespace quant {
namespace cuda {
namespace {

// The linear's input is what `producer` makes.
bool takes(const std::vector<Bound>& nodes, const Bound& producer, const Bound& linear, const DeviceTraits& traits,
           int max_rows) {
    const Op op = producer.node.op;
    const bool rounds = op == Op::quantize || op == Op::rmsnorm_quantize;
    if (!rounds && op != Op::rmsnorm && op != Op::silu_mul) return false;
    if (linear.node.in[0] != producer.node.out || linear.kernel->weights != &layout_fragments) return false;
    if (readers(nodes, producer.node.out) != 1) return false;
    if (has_tokens_laid_out(traits, max_rows, linear)) return !rounds;
    if (op == Op::silu_mul || (rounds && !can_round_input(linear))) return false;
    // The producer's input may already be free when the linear writes: blocks would read what others have written.
    return max_rows <= most_rows_repeated && !overlap(producer.in[0].data, linear.out.data);
}

// `silu` is of the two halves of the linear's result, and nothing else is.
bool gives(const std::vector<Bound>& nodes, const Bound& linear, const Bound& silu, const DeviceTraits& traits,
           int max_rows) {
    if (silu.node.op != Op::silu_mul || linear.node.op != Op::linear) return false;
    if (linear.kernel->weights != &layout_fragments || has_tokens_laid_out(traits, max_rows, linear)) return false;
    const int64_t half = silu.out.cols;
    if (linear.node.weight->rows != 2 * half || half % 16 != 0) return false;
    for (int i = 0; i < 2; ++i) {
        const Slice &part = silu.in[i].data, &whole = linear.out.data;
        if (part.buffer != whole.buffer || part.offset != whole.offset + i * half * sizeof(float)) return false;
        if (silu.in[i].stride != linear.out.stride || readers(nodes, silu.node.in[i]) != 1) return false;
    }
    return readers(nodes, linear.node.out) == 0;
}

}  // namespace

std::vector<Folded> fold(const std::vector<Bound>& nodes, const DeviceTraits& traits, int max_rows) {
    std::vector<Folded> folded(nodes.size());
    for (size_t i = 0; i + 1 < nodes.size(); ++i) {
        if (folded[i].away) continue;
        if (takes(nodes, nodes[i], nodes[i + 1], traits, max_rows)) {
            folded[i].away = true;
            folded[i + 1].producer = &nodes[i];
            continue;
        }
        const Bound& source = folded[i].producer ? *folded[i].producer : nodes[i];  // of what the linear reads
        if (gives(nodes, nodes[i], nodes[i + 1], traits, max_rows) &&
            !overlap(source.in[0].data, nodes[i + 1].out.data)) {
            folded[i + 1].away = true;
            folded[i].consumer = &nodes[i + 1];
        }
    }
    return folded;
}

}  // namespace cuda
}  // namespace quant
