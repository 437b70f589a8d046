// Byte-pair merging: a text starts as single characters (or bytes), and the pair of neighbours that may merge and whose
// merge has the lowest rank does so, the leftmost first among equals, until no pair may. With a heap of candidate
// pairs that is O(n log n).
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace quant {

struct Merge {
    uint32_t rank;
    int32_t token;  // -1: the pair does not merge
};

// Which pairs of tokens merge, for vocabularies with a list of merges.
class MergeTable {
  public:
    explicit MergeTable(size_t merges);                  // room for this many
    void add(int32_t left, int32_t right, Merge merge);  // the first of two for one pair counts
    Merge find(int32_t left, int32_t right) const;
    // Starts to fetch the pair's place from memory, for an add() that comes soon.
    void prefetch(int32_t left, int32_t right) const;

  private:
    struct Slot {
        int32_t left, right;
        Merge merge;
    };
    size_t home(int32_t left, int32_t right) const;
    size_t slot(int32_t left, int32_t right) const;

    std::vector<Slot> slots_;  // open addressing; merge.token -1 = free
};

// One word being merged. Kept from word to word, so that its memory is allocated once.
class MergeWord {
  public:
    struct Symbol {
        uint32_t start, size;  // of its bytes in the text; size 0: merged into its left neighbour
        uint32_t previous, next;
        int32_t token;  // -1: none has this text
        Merge merge;    // with the next symbol
    };

    void clear() { symbols_.clear(); }
    void append(uint32_t start, uint32_t size, int32_t token) {
        uint32_t i = static_cast<uint32_t>(symbols_.size());
        symbols_.push_back({start, size, i - 1, i + 1, token, {0, -1}});
    }

    // pair(left, right) -> Merge, for neighbouring symbols.
    template <class Pair>
    void merge(const Pair& pair);

    template <class Each>
    void each(const Each& visit) const {
        for (size_t i = 0; i < symbols_.size(); i = symbols_[i].next) visit(symbols_[i]);
    }

  private:
    std::vector<Symbol> symbols_;
    std::vector<uint64_t> heap_;  // candidates, the smallest first: rank << 32 | index of the left symbol
};

template <class Pair>
void MergeWord::merge(const Pair& pair) {
    std::greater<uint64_t> later;
    uint32_t count = static_cast<uint32_t>(symbols_.size());
    // The merge of a symbol with its next one goes into the symbol and, if there is one, onto the heap.
    auto consider = [&](uint32_t at) {
        Symbol& s = symbols_[at];
        s.merge = s.next == count ? Merge{0, -1} : pair(s, symbols_[s.next]);
        if (s.merge.token >= 0) heap_.push_back(uint64_t{s.merge.rank} << 32 | at);
        return s.merge.token >= 0;
    };

    heap_.clear();
    for (uint32_t i = 0; i < count; ++i) consider(i);
    std::make_heap(heap_.begin(), heap_.end(), later);
    while (!heap_.empty()) {
        std::pop_heap(heap_.begin(), heap_.end(), later);
        uint32_t at = static_cast<uint32_t>(heap_.back()), rank = static_cast<uint32_t>(heap_.back() >> 32);
        heap_.pop_back();
        Symbol& left = symbols_[at];
        // A candidate whose symbols have merged otherwise since then.
        if (left.size == 0 || left.merge.token < 0 || left.merge.rank != rank) continue;
        Symbol& right = symbols_[left.next];
        left.size += right.size;
        left.token = left.merge.token;
        left.next = right.next;
        right.size = 0;
        if (left.next != count) symbols_[left.next].previous = at;
        if (consider(at)) std::push_heap(heap_.begin(), heap_.end(), later);
        if (at != 0 && consider(left.previous)) std::push_heap(heap_.begin(), heap_.end(), later);
    }
}

}  // namespace quant
