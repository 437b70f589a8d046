#include "backends/cuda/fold.h"

#include "backends/cuda/layouts.h"

namespace quant {
namespace cuda {
namespace {

bool overlap(const Slice& a, const Slice& b) {
    return a.buffer == b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

}  // namespace

std::vector<Folded> fold_norms(const std::vector<Bound>& nodes, int max_rows) {
    std::vector<Folded> folded(nodes.size());
    if (max_rows > most_folded_rows) return folded;
    for (size_t i = 0; i + 1 < nodes.size(); ++i) {
        const Bound &norm = nodes[i], &linear = nodes[i + 1];
        if (norm.node.op != Op::rmsnorm || linear.kernel->weights != &layout_fragments) continue;
        if (linear.node.in[0] != norm.node.out) continue;
        int readers = 0;
        for (const Bound& b : nodes)
            for (int in : b.node.in) readers += in == norm.node.out;
        // The norm's input may already be free when the linear writes: blocks would read what others have written.
        if (readers == 1 && !overlap(norm.in[0].data, linear.out.data)) {
            folded[i].away = true;
            folded[i + 1].norm = &norm;
        }
    }
    return folded;
}

}  // namespace cuda
}  // namespace quant
