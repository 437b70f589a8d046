#include "backends/vulkan/step_block.h"

#include <algorithm>

#include "formats/error.h"

namespace quant {
namespace vulkan {
namespace {

void fill_slot(const Step& step, int max_rows, const AttentionSlot& slot, int32_t* arguments, int32_t* tiles) {
    int n = 0, most_pages = 1;
    for (const StepSequence& s : step.sequences) {
        for (int row = 0; row < s.rows; row += slot.tile_rows) {
            tiles[n] = s.first_row + row;
            tiles[max_rows + n] = std::min(slot.tile_rows, s.rows - row);
            ++n;
        }
        most_pages = std::max(most_pages, (s.first_position + s.rows + page_positions - 1) / page_positions);
    }
    const int workgroups = std::max(1, n * slot.head_tiles);
    const int splits = std::max(1, std::min({slot.max_splits, most_pages, slot.wanted_workgroups / workgroups}));
    arguments[0] = n;
    arguments[1] = slot.head_tiles;
    arguments[2] = splits;
    arguments[3] = splits;
    arguments[4] = splits > 1 ? step.rows() : 0;
    arguments[5] = slot.heads;
    arguments[6] = 1;
}

}  // namespace

size_t step_block_ints(int max_rows, const std::vector<AttentionSlot>& slots) {
    int counters = 0;
    if (max_rows == 1)
        for (const AttentionSlot& slot : slots) counters = std::max(counters, slot.head_tiles);
    return step_counters_at(max_rows) + counters;
}

void fill_step_block(const Step& step, int max_rows, const std::vector<AttentionSlot>& slots, uint64_t page_table,
                     int32_t* block) {
    const int rows = step.rows();
    if (rows > max_rows || step.outputs() > max_rows)
        fail(QUANT_ERR_ARGUMENT, "a step of " + std::to_string(std::max(rows, step.outputs())) +
                                     " rows does not fit a plan of " + std::to_string(max_rows));
    auto array = [&](StepArray a) { return block + step_array_at(a, max_rows); };
    block[step_rows] = rows;
    block[step_outputs] = step.outputs();
    block[step_pages] = static_cast<int32_t>(static_cast<uint32_t>(page_table));
    block[step_pages + 1] = static_cast<int32_t>(static_cast<uint32_t>(page_table >> 32));
    std::copy(step.tokens.begin(), step.tokens.end(), array(StepArray::tokens));
    std::copy(step.positions.begin(), step.positions.end(), array(StepArray::positions));
    std::copy(step.output_rows.begin(), step.output_rows.end(), array(StepArray::output_rows));
    for (size_t i = 0; i < step.sequences.size(); ++i) {
        const StepSequence& s = step.sequences[i];
        std::fill_n(array(StepArray::first_pages) + s.first_row, s.rows, s.first_page);
        std::fill_n(array(StepArray::sequences) + s.first_row, s.rows, static_cast<int32_t>(i));
    }
    for (size_t i = 0; i < slots.size(); ++i)
        fill_slot(step, max_rows, slots[i], block + step_slots + slot_ints * i,
                  array(StepArray::tiles) + 2 * i * max_rows);
}

}  // namespace vulkan
}  // namespace quant
