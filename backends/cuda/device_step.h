// The step as the kernels see it: one block of 32-bit words on the device, written before each run.
#pragma once
#include <cstdint>

namespace quant {
namespace cuda {

#ifdef __CUDACC__
#define QUANT_DEVICE_FUNCTION __device__ inline
#else
#define QUANT_DEVICE_FUNCTION inline
#endif

struct StepSequenceWords {
    int32_t first_row, rows, first_position, first_page;
};

// The block's arrays lie where a plan of max_rows rows has them, so that kernels find them without reading first:
//     rows, outputs, sequences | at 16: tokens, positions, first pages, output rows, [max_rows] each
//     StepSequenceWords[max_rows] | 64-bit device addresses of the pages
// The first page of a row is its sequence's. Nothing of it changes while a plan runs.
struct StepView {
    const int32_t* words;
    int max_rows;
    static constexpr int header = 16;

    QUANT_DEVICE_FUNCTION int rows(bool outputs) const { return words[outputs ? 1 : 0]; }
    QUANT_DEVICE_FUNCTION int sequences() const { return words[2]; }
    QUANT_DEVICE_FUNCTION int token(int row) const { return words[header + row]; }
    QUANT_DEVICE_FUNCTION int position(int row) const { return words[header + max_rows + row]; }
    QUANT_DEVICE_FUNCTION int first_page(int row) const { return words[header + 2 * max_rows + row]; }
    QUANT_DEVICE_FUNCTION int output_row(int row) const { return words[header + 3 * max_rows + row]; }
    QUANT_DEVICE_FUNCTION StepSequenceWords sequence(int index) const {
        return reinterpret_cast<const StepSequenceWords*>(words + header + 4 * max_rows)[index];
    }
    // Of the sequences, whose rows ascend, the one with this row.
    QUANT_DEVICE_FUNCTION int sequence_of(int row) const {
        int low = 0;
        for (int high = sequences(); high - low > 1;) {
            const int middle = (low + high) / 2;
            (sequence(middle).first_row <= row ? low : high) = middle;
        }
        return low;
    }
    QUANT_DEVICE_FUNCTION uint8_t* page(int index) const {
        return reinterpret_cast<uint8_t* const*>(words + header + 8 * max_rows)[index];
    }
    int64_t words_before_pages() const { return header + 8 * static_cast<int64_t>(max_rows); }
};

constexpr int64_t step_words = int64_t{1} << 20;  // capacity of the block: about 500,000 pages

}  // namespace cuda
}  // namespace quant
