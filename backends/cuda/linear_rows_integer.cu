#include "backends/cuda/linear_rows.cuh"

namespace quant {
namespace cuda {

LinearKernel rows_kernel_integer(Element element, int tiles_of_8) {
    switch (element) {
        case Element::s8:
            return rows::choose_rows<Codec8<ByteCode::s8>, true, rows::Scales::row>(tiles_of_8);
        case Element::u4:
            return rows::choose_rows<Codec4, true, rows::Scales::row>(tiles_of_8);
        default:
            return rows::choose_rows<Codec8<ByteCode::u8>, true, rows::Scales::row>(tiles_of_8);
    }
}

}  // namespace cuda
}  // namespace quant
