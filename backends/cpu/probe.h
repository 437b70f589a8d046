// What this processor can do at most, measured: the limits that kernels are compared with.
#pragma once
#include <string>

#include "backends/cpu/kernels.h"  // QUANT_ARM
#include "core/memory.h"
#include "core/threads.h"

namespace quant {

// Bytes per second of streaming reads of 1 GiB with all threads: the best of 1, 2, 4 and 8 streams a thread.
double probe_read_bandwidth(ThreadPool& threads, const HostMemory& memory);

// Integer dot products and float32 FMA (or the nearest thing that `device`, "cpu:...", has), all threads; a
// multiplication and an addition count as two operations.
void probe_arithmetic(const std::string& device, ThreadPool& threads, quant_limits* limits);

// One instruction set's loops: `rounds` rounds of independent accumulations, enough of them to hide the latency, and
// the operations of a round. They return something that depends on the result. int8: exact dot products of 8-bit
// weights and int8 activations with 32-bit sums; int4: of 4-bit weights, whose sums may stay in 16 bits for a while.
struct ArithmeticLoops {
    int (*int8)(int rounds);
    double int8_operations;
    int (*int4)(int rounds);
    double int4_operations;
    int (*f32)(int rounds);
    double f32_operations;
};
extern const ArithmeticLoops arithmetic_baseline;
#if defined(__x86_64__) || defined(_M_X64)
extern const ArithmeticLoops arithmetic_avx2, arithmetic_avxvnni, arithmetic_avx512;
// Dot products of pairs of bf16 with float32 sums.
struct ArithmeticLoop {
    int (*run)(int rounds);
    double operations;
};
extern const ArithmeticLoop bf16_avx512;
// AMX's products of tiles.
extern const ArithmeticLoop int8_amx, bf16_amx;
#endif
#if defined(QUANT_ARM)
extern const ArithmeticLoops arithmetic_neon;
#endif
#if defined(QUANT_ARM_64)
extern const ArithmeticLoops arithmetic_neon_dotprod, arithmetic_neon_i8mm;
#endif

}  // namespace quant
