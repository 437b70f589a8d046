#include "backends/cuda/linear_rows.cuh"

namespace quant {
namespace cuda {

LinearKernel rows_kernel_u8(int tiles_of_8, int scales) {
    return rows::choose_scales<Codec8<ByteCode::u8>>(tiles_of_8, scales);
}

}  // namespace cuda
}  // namespace quant
