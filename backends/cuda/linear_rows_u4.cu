#include "backends/cuda/linear_rows.cuh"

namespace quant {
namespace cuda {

LinearKernel rows_kernel_u4(int tiles_of_8, int scales) {
    return rows::choose_scales<Codec4>(tiles_of_8, scales);
}

}  // namespace cuda
}  // namespace quant
