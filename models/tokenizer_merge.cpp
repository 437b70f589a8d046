#include "models/tokenizer_merge.h"

namespace quant {

MergeTable::MergeTable(size_t merges) {
    slots_.resize(merges + merges / 2 + 1, Slot{0, 0, {0, -1}});
}

size_t MergeTable::home(int32_t left, int32_t right) const {
    uint64_t h = (uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right)) * 0x9E3779B97F4A7C15u;
    return static_cast<size_t>(((h ^ h >> 32) & 0xFFFFFFFF) * slots_.size() >> 32);  // a fraction of the table
}

// Where the pair is, or the free place where it belongs.
size_t MergeTable::slot(int32_t left, int32_t right) const {
    size_t i = home(left, right);
    while (slots_[i].merge.token >= 0 && (slots_[i].left != left || slots_[i].right != right))
        if (++i == slots_.size()) i = 0;
    return i;
}

void MergeTable::prefetch(int32_t left, int32_t right) const {
#if defined(__GNUC__)
    __builtin_prefetch(&slots_[home(left, right)]);
#else
    static_cast<void>(left), static_cast<void>(right);
#endif
}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
    Slot& s = slots_[slot(left, right)];
    if (s.merge.token < 0) s = {left, right, merge};
}

Merge MergeTable::find(int32_t left, int32_t right) const {
    return slots_[slot(left, right)].merge;
}

}  // namespace quant
