// What the processor that this runs on has.
#pragma once
#include <string>

#include "backends/cpu/kernels.h"  // QUANT_ARM

namespace quant {

struct Processor {
    std::string name = "CPU";
    // The first thing that each instruction set's kernels miss, or empty. Those of other architectures mean nothing.
    std::string lacks_avx2, lacks_avxvnni, lacks_avx512, lacks_avx512_bf16, lacks_amx;
    std::string lacks_neon, lacks_neon_dotprod, lacks_neon_i8mm;
    bool one_stream = false;  // a core reads memory fastest front to back, not from several places in turn
    bool slow_bf16 = false;   // AVX-512 BF16's dot product has half the rate of float32's multiply and add
};
Processor detect_processor();

}  // namespace quant
