// Byte-pair merging: a text starts as single characters (or bytes), and the pair of neighbours that may merge and whose
// merge has the lowest rank does so, the leftmost first among equals, until no pair may. With a heap of candidate
// pairs that is O(n log n).
#pragma once
#include <algorithm>
#include <cstdint>
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

  private:
    struct Slot {
        int32_t left, right;
        Merge merge;
    };
    size_t slot(int32_t left, int32_t right) const;

    std::vector<Slot> slots_;  // open addressing, a power of two; merge.token -1 = free
};

// One word being merged. Kept from word to word, so that its memory is allocated once.
class MergeWord {
  public:
    struct Symbol {
        uint32_t start, size;  // of its bytes in the text; size 0: merged into its left neighbour
        uint32_t previous, next;
        int32_t token;  // -1: none has this text
    };

    void clear() { symbols_.clear(); }
    void append(uint32_t start, uint32_t size, int32_t token) {
        uint32_t i = static_cast<uint32_t>(symbols_.size());
        symbols_.push_back({start, size, i - 1, i + 1, token});
    }

    // pair(left, right) -> Merge, for neighbouring symbols.
    template <class Pair>
    void merge(const Pair& pair);

    template <class Each>
    void each(const Each& visit) const {
        for (size_t i = 0; i < symbols_.size(); i = symbols_[i].next) visit(symbols_[i]);
    }

  private:
    struct Candidate {
        uint64_t order;  // rank, then index of the left symbol
        uint32_t size;   // of both symbols together, when it was found
        int32_t token;
    };
    static bool later(const Candidate& a, const Candidate& b) { return a.order > b.order; }

    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
};

template <class Pair>
void MergeWord::merge(const Pair& pair) {
    auto consider = [&](uint32_t left) {
        const Symbol &l = symbols_[left], &r = symbols_[l.next];
        Merge found = pair(l, r);
        if (found.token >= 0) heap_.push_back({uint64_t{found.rank} << 32 | left, l.size + r.size, found.token});
        return found.token >= 0;
    };
    auto push = [&](uint32_t left) {
        if (consider(left)) std::push_heap(heap_.begin(), heap_.end(), later);
    };

    heap_.clear();
    uint32_t count = static_cast<uint32_t>(symbols_.size());
    for (uint32_t i = 0; i + 1 < count; ++i) consider(i);
    std::make_heap(heap_.begin(), heap_.end(), later);
    while (!heap_.empty()) {
        std::pop_heap(heap_.begin(), heap_.end(), later);
        Candidate best = heap_.back();
        heap_.pop_back();
        uint32_t at = static_cast<uint32_t>(best.order);
        Symbol& left = symbols_[at];
        // Symbols only grow, so the pair is still the one that was found exactly if it has the same bytes.
        if (left.size == 0 || left.next == count || left.size + symbols_[left.next].size != best.size) continue;
        Symbol& right = symbols_[left.next];
        left.size = best.size;
        left.token = best.token;
        left.next = right.next;
        right.size = 0;
        if (left.next != count) {
            symbols_[left.next].previous = at;
            push(at);
        }
        if (at != 0) push(left.previous);
    }
}

}  // namespace quant
