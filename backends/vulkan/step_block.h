// The Step block in device memory: what changes from one run of a plan to the next (shaders/step.glsl has the offsets).
#pragma once
#include <cstdint>
#include <vector>

#include "core/backend.h"

namespace quant {
namespace vulkan {

// How attention divides a step's rows: one for every kind of attention in a plan.
struct AttentionSlot {
    int tile_rows = 1;   // rows of one sequence that a workgroup takes
    int head_tiles = 1;  // workgroups for the heads of a tile
    int heads = 1;       // of the model
    int max_splits = 1;  // of the positions
    int wanted_workgroups = 1;
};

constexpr int step_rows = 0, step_outputs = 1, step_pages = 2, step_slots = 4, slot_ints = 8, max_slots = 4,
              step_arrays = 36;
enum class StepArray : int { tokens, positions, output_rows, first_pages, sequences, tiles };

inline size_t step_array_at(StepArray array, int max_rows) {
    return step_arrays + static_cast<size_t>(array) * max_rows;
}
// After the tiles of all slots, in plans of one row: for every tile of heads, how many of its splits have finished
// (attention_row.comp). Zero before a run and after it.
inline size_t step_counters_at(int max_rows) {
    return step_array_at(StepArray::tiles, max_rows) + size_t{2} * max_slots * max_rows;
}
size_t step_block_ints(int max_rows, const std::vector<AttentionSlot>& slots);
// Throws Error(ARGUMENT) if the step has more rows than max_rows.
void fill_step_block(const Step& step, int max_rows, const std::vector<AttentionSlot>& slots, uint64_t page_table,
                     int32_t* block);

}  // namespace vulkan
}  // namespace quant
