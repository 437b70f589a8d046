#include "backends/cuda/linear_rows.cuh"

namespace quant {
namespace cuda {

LinearKernel rows_kernel_16(bool bf16, int tiles_of_8) {
    return bf16 ? rows::choose_rows<Codec16<true>, false, rows::Scales::none>(tiles_of_8)
                : rows::choose_rows<Codec16<false>, false, rows::Scales::none>(tiles_of_8);
}

}  // namespace cuda
}  // namespace quant
