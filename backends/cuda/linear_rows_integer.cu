#include "backends/cuda/linear_rows.cuh"

namespace quant {
namespace cuda {
namespace {

template <class Codec>
LinearKernel choose(int tiles_of_8, bool rounds) {
    return rounds ? rows::linear_rows<Codec, true, rows::Scales::row, 1, true>
                  : rows::choose_rows<Codec, true, rows::Scales::row>(tiles_of_8);
}

}  // namespace

LinearKernel rows_kernel_integer(Element element, int tiles_of_8, bool rounds) {
    switch (element) {
        case Element::s8:
            return choose<Codec8<ByteCode::s8>>(tiles_of_8, rounds);
        case Element::u4:
            return choose<Codec4>(tiles_of_8, rounds);
        default:
            return choose<Codec8<ByteCode::u8>>(tiles_of_8, rounds);
    }
}

}  // namespace cuda
}  // namespace quant
