// A plan of one row as one kernel that stays on all multiprocessors: instructions that blocks work through together,
// and the weights of all linears as one stream that never waits for them. persistent.cpp makes a program of a plan's
// nodes, persistent.cu runs it.
#pragma once
#include <vector>

#include "backends/cuda/arguments.h"
#include "backends/cuda/linear.h"

namespace quant {
namespace cuda {

constexpr int worker_warps = 15;  // of a block; one more copies weights, and 16 have 128 registers a thread
constexpr int warp_stages = 2, chunk_stages = warp_stages * worker_warps;  // that are copied together
constexpr int most_block_tiles = 16;                                       // of a stream
// Of a linear's input, which passes through registers: four columns of a thread are a quad.
constexpr int quad_columns = 4 * 32 * worker_warps, few_quads = 3, several_quads = 6, most_quads = 8,
              most_normed_quads = 5;

// Weights of a linear, or of a part of one that has too many tiles.
struct WeightStream {
    const uint8_t* tiles;
    uint32_t tile_bytes;
    int tiles_together;        // 2: each tile of the first half of the rows with its fellow of the second half
    int first_unit, units;     // of tiles_together
    int second_half;           // in pairs: the number of the second half's first tile
    int stages, stage_blocks;  // of a tile; blocks of 32 columns of a stage
    // Groups of parameters that go with the stages: 2^group_shift blocks have one. group_bytes = 0: none do.
    int parameters_at, group_bytes, group_shift, last_group;
    int stage_parameters;          // bytes that are kept for those of a stage
    int stages_inverse;            // x * stages_inverse / 2^20 = x / stages for any stage that a warp comes to
    int block_first, block_tiles;  // what a block has of the units, in its own copy
};

enum class Codec : int8_t { f16, bf16, s8, u8, e4m3, u4, integer_s8, integer_u8, integer_u4 };
enum class Phase : int8_t { copy, linear, attention };

struct alignas(16) Instruction {
    Phase phase;
    bool awaits_in, awaits_add;  // other blocks write them
    // copy
    const float* from;
    float* to;
    int64_t count;
    // linear; `in`, `add` and `out` are of the row, and `in` is rounded to codes of type rounds_to (f32: it is not).
    LinearArguments linear;
    ValueType rounds_to;
    Codec codec;
    int8_t scales;  // as in linear.h
    int stream, streams;
    // attention, with the turns of q and k and the write of k and v
    AttentionArguments attention;
    RopeArguments rope;
    int heads_together, groups, splits;
    float* partial;  // [kv head][group][split][heads_together][head_dim + 2]
};

// Chunks: of the ring, and of those that a linear starts with how many may be on their way at once.
constexpr int most_slots = 16, most_in_waiting = 1;
constexpr int absent_byte = 0xff;  // fills values that are not written yet
// The row's queries, key and value, queries turned, weights, sums, largest, total.
constexpr size_t attention_shared_bytes(int heads_together, int head_dim) {
    return (static_cast<size_t>(heads_together) * (2 * head_dim + worker_warps * (16 + head_dim + 2)) + 2 * head_dim) *
           sizeof(float);
}

// Shared memory of a block after its BlockState: the streams, a ring of slots for weights, and what a phase needs.
struct PersistentShared {
    int streams, slots, slot_bytes;
    int streams_at, barriers_at, phase_at, sums_at, segments_at, slots_at;  // phase_at: activations, or for attention
    int bytes;
};

// Where a warp is in the program. What lasts from one instruction to the next lies here rather than in registers, of
// which there are none to spare: local memory is a trip to the second-level cache.
struct WarpState {
    volatile int instruction, stream, slot;
    volatile uint32_t parity;  // of the slot
};

// What a result needs beside the sum.
struct alignas(16) ResultConstants {
    float scale, offset, bias, add;
};

struct BlockState {
    Instruction instructions[2];  // the one that is worked on and the next
    ResultConstants constants[most_block_tiles * 16];
    WarpState warps[worker_warps];
    PersistentShared shared;
    float squares[worker_warps], magnitudes[worker_warps], floats[worker_warps];  // of reductions over the warps
    int ints[worker_warps];
    RowScale scale;  // of activations that are codes
};

struct PersistentProgram {
    size_t before = 0;  // nodes of the plan that kernels of their own compute before
    std::vector<Instruction> instructions;
    std::vector<WeightStream> streams;
    PersistentShared shared{};
    size_t memory = 0;  // bytes of values that only the program knows, all absent when the kernel starts
};

// False: the plan has something that the kernel cannot do. Values that only nodes of the plan see lie in `memory`;
// addresses are of no use when it is null, but sizes are right.
bool persistent_program(const std::vector<Bound>& nodes, const DeviceTraits& traits, int max_rows, uint8_t* memory,
                        PersistentProgram* program);

struct PersistentArguments {
    const Instruction* instructions;
    const WeightStream* streams;
    int count;
    PersistentShared shared;
};
void launch_persistent(const DeviceTraits& traits, cudaStream_t stream, StepView step, const PersistentArguments& a);

}  // namespace cuda
}  // namespace quant
