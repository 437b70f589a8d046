#include "backends/cuda/tensor_map.h"

#include "backends/cuda/recorder.h"
#include "formats/error.h"

namespace quant {
namespace cuda {
namespace {

// The driver's function: the library does not link with the driver.
decltype(&cuTensorMapEncodeTiled) encode_function() {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
          "find cuTensorMapEncodeTiled");
#else
    check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found),
          "find cuTensorMapEncodeTiled");
#endif
    if (!function || found != cudaDriverEntryPointSuccess)
        fail(QUANT_ERR_DEVICE, "CUDA: the driver has no tensor maps");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

CUtensorMap map_bytes(const uint8_t* memory, const cuuint64_t (&sizes)[3], const cuuint64_t (&strides)[2],
                      const cuuint32_t (&box)[3], CUtensorMapSwizzle swizzle) {
    const cuuint32_t steps[3] = {1, 1, 1};
    CUtensorMap map{};
    const CUresult error = encode_function()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 3, const_cast<uint8_t*>(memory),
                                             sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (error != CUDA_SUCCESS) fail(QUANT_ERR_DEVICE, "CUDA: describe an array: error " + std::to_string(error));
    return map;
}

constexpr cuuint32_t box_bytes = 128;  // of a row

}  // namespace

CUtensorMap map_tiles(const uint8_t* memory, int64_t tile_rows, int64_t tiles, int64_t tile_stride, int box_rows,
                      int box_tiles) {
    return map_bytes(memory, {box_bytes, static_cast<cuuint64_t>(tile_rows), static_cast<cuuint64_t>(tiles)},
                     {box_bytes, static_cast<cuuint64_t>(tile_stride)},
                     {box_bytes, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(box_tiles)},
                     CU_TENSOR_MAP_SWIZZLE_NONE);
}

CUtensorMap map_rows(const uint8_t* memory, int64_t row_bytes, int64_t rows, int box_rows) {
    const cuuint64_t bytes = static_cast<cuuint64_t>(row_bytes), count = static_cast<cuuint64_t>(rows);
    return map_bytes(memory, {bytes, count, 1}, {bytes, bytes * count},
                     {box_bytes, static_cast<cuuint32_t>(box_rows), 1}, CU_TENSOR_MAP_SWIZZLE_128B);
}

}  // namespace cuda
}  // namespace quant
