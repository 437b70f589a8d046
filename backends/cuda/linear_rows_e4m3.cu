#include "backends/cuda/linear_rows.cuh"

namespace quant {
namespace cuda {

LinearKernel rows_kernel_e4m3(int tiles_of_8, int scales, bool rounds) {
    if (rounds) return rows::linear_rows<Codec8<ByteCode::e4m3>, false, rows::Scales::row, 1, true>;
    return rows::choose_scales<Codec8<ByteCode::e4m3>>(tiles_of_8, scales);
}

}  // namespace cuda
}  // namespace quant
