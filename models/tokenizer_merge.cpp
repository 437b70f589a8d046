#include "models/tokenizer_merge.h"

namespace quant {

MergeTable::MergeTable(size_t merges) {
    size_t slots = 16;
    while (slots / 2 < merges) slots *= 2;
    slots_.resize(slots, Slot{0, 0, {0, -1}});
}

// Where the pair is, or the free place where it belongs.
size_t MergeTable::slot(int32_t left, int32_t right) const {
    uint64_t h = (uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right)) * 0x9E3779B97F4A7C15u;
    size_t mask = slots_.size() - 1, i = static_cast<size_t>((h ^ h >> 29) >> 16) & mask;
    while (slots_[i].merge.token >= 0 && (slots_[i].left != left || slots_[i].right != right)) i = (i + 1) & mask;
    return i;
}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
    Slot& s = slots_[slot(left, right)];
    if (s.merge.token < 0) s = {left, right, merge};
}

Merge MergeTable::find(int32_t left, int32_t right) const {
    return slots_[slot(left, right)].merge;
}

}  // namespace quant
