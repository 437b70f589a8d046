#include "bench/cublaslt.h"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "formats/float_types.h"
#include "tests/kernel_rig.h"

namespace quant {
namespace {

void check(int error, const char* what) {
    if (error) throw std::runtime_error(std::string(what) + ": error " + std::to_string(error));
}

// The library's functions, by their own names without the prefix.
class Library {
  public:
    Library() {
        for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"})
            if (!handle_) handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (!handle_) throw std::runtime_error("no cuBLASLt");
        find(Create, "cublasLtCreate");
        find(Destroy, "cublasLtDestroy");
        find(MatmulDescCreate, "cublasLtMatmulDescCreate");
        find(MatmulDescDestroy, "cublasLtMatmulDescDestroy");
        find(MatmulDescSetAttribute, "cublasLtMatmulDescSetAttribute");
        find(MatrixLayoutCreate, "cublasLtMatrixLayoutCreate");
        find(MatrixLayoutDestroy, "cublasLtMatrixLayoutDestroy");
        find(MatmulPreferenceCreate, "cublasLtMatmulPreferenceCreate");
        find(MatmulPreferenceDestroy, "cublasLtMatmulPreferenceDestroy");
        find(MatmulPreferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute");
        find(MatmulAlgoGetHeuristic, "cublasLtMatmulAlgoGetHeuristic");
        find(Matmul, "cublasLtMatmul");
    }
    decltype(&cublasLtCreate) Create;
    decltype(&cublasLtDestroy) Destroy;
    decltype(&cublasLtMatmulDescCreate) MatmulDescCreate;
    decltype(&cublasLtMatmulDescDestroy) MatmulDescDestroy;
    decltype(&cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute;
    decltype(&cublasLtMatrixLayoutCreate) MatrixLayoutCreate;
    decltype(&cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy;
    decltype(&cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate;
    decltype(&cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute;
    decltype(&cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic;
    decltype(&cublasLtMatmul) Matmul;

  private:
    template <class Function>
    void find(Function& function, const char* name) {
        function = reinterpret_cast<Function>(dlsym(handle_, name));
        if (!function) throw std::runtime_error(name);
    }
    void* handle_ = nullptr;  // stays open: a driver's libraries do not like to be closed
};

class DeviceMemory {
  public:
    explicit DeviceMemory(size_t bytes) { check(cudaMalloc(&data_, bytes), "memory"); }
    ~DeviceMemory() { cudaFree(data_); }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;
    uint8_t* data() const { return static_cast<uint8_t*>(data_); }

  private:
    void* data_ = nullptr;
};

std::vector<uint8_t> random_numbers(LibraryNumbers numbers, size_t n, Random& random) {
    std::vector<uint8_t> bytes(numbers == LibraryNumbers::f16 ? 2 * n : n);
    if (numbers == LibraryNumbers::f16) {
        for (size_t i = 0; i < n; ++i) {
            const uint16_t h = f32_to_f16(random.uniform(-1, 1));
            bytes[2 * i] = static_cast<uint8_t>(h);
            bytes[2 * i + 1] = static_cast<uint8_t>(h >> 8);
        }
        return bytes;
    }
    for (uint8_t& b : bytes) {
        b = random.byte();
        if (numbers == LibraryNumbers::e4m3 && (b & 0x7f) == 0x7f) b ^= 1;  // no NaN
    }
    return bytes;
}

class Products : public LibraryProducts {
  public:
    Products(int device, LibraryNumbers numbers, LibraryResults results, int64_t out, int64_t in, int rows, int weights)
        : integers_(numbers == LibraryNumbers::s8),
          weights_(weights),
          weight_bytes_(static_cast<size_t>(out * in) * (numbers == LibraryNumbers::f16 ? 2 : 1)),
          w_(weight_bytes_ * weights),
          x_(static_cast<size_t>(rows * in) * 2),
          y_(static_cast<size_t>(rows * out) * 4),
          workspace_(workspace_bytes) {
        check(cudaSetDevice(device), "device");
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
        Random random(1);
        const std::vector<uint8_t> w = random_numbers(numbers, static_cast<size_t>(out * in), random),
                                   x = random_numbers(numbers, static_cast<size_t>(rows * in), random);
        for (int i = 0; i < weights; ++i)
            check(cudaMemcpy(w_.data() + i * weight_bytes_, w.data(), w.size(), cudaMemcpyHostToDevice), "write");
        check(cudaMemcpy(x_.data(), x.data(), x.size(), cudaMemcpyHostToDevice), "write");

        const bool halves = numbers == LibraryNumbers::f16;
        const cudaDataType_t factor = integers_ ? CUDA_R_8I : halves ? CUDA_R_16F : CUDA_R_8F_E4M3;
        const cudaDataType_t result = integers_                         ? CUDA_R_32I
                                      : results == LibraryResults::full ? CUDA_R_32F
                                      : halves                          ? CUDA_R_16F
                                                                        : CUDA_R_16BF;
        check(library_.Create(&handle_), "cublasLtCreate");
        check(library_.MatmulDescCreate(&product_, integers_ ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                        integers_ ? CUDA_R_32I : CUDA_R_32F),
              "cublasLtMatmulDescCreate");
        const cublasOperation_t transposed = CUBLAS_OP_T;
        set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
        if (!integers_ && !halves) set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
        // Column by column, as the library counts: y^T = (w^T)^T x^T.
        const uint64_t m = static_cast<uint64_t>(out), k = static_cast<uint64_t>(in), n = static_cast<uint64_t>(rows);
        check(library_.MatrixLayoutCreate(&w_layout_, factor, k, m, in), "layout");
        check(library_.MatrixLayoutCreate(&x_layout_, factor, k, n, in), "layout");
        check(library_.MatrixLayoutCreate(&y_layout_, result, m, n, out), "layout");
        check(library_.MatmulPreferenceCreate(&preference_), "preference");
        const size_t most = workspace_bytes;
        check(library_.MatmulPreferenceSetAttribute(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                                    sizeof most),
              "preference");
        choose_fastest();
    }
    ~Products() override {
        cudaStreamSynchronize(stream_);
        library_.MatmulPreferenceDestroy(preference_);
        for (cublasLtMatrixLayout_t layout : {w_layout_, x_layout_, y_layout_}) library_.MatrixLayoutDestroy(layout);
        library_.MatmulDescDestroy(product_);
        library_.Destroy(handle_);
        cudaStreamDestroy(stream_);
    }

    void run(int products) override {
        const float one = 1, zero = 0;
        const int32_t integer_one = 1, integer_zero = 0;
        for (int i = 0; i < products; ++i) {
            next_ = (next_ + 1) % weights_;
            check(library_.Matmul(handle_, product_, integers_ ? static_cast<const void*>(&integer_one) : &one,
                                  w_.data() + next_ * weight_bytes_, w_layout_, x_.data(), x_layout_,
                                  integers_ ? static_cast<const void*>(&integer_zero) : &zero, y_.data(), y_layout_,
                                  y_.data(), y_layout_, &algorithm_, workspace_.data(), workspace_bytes, stream_),
                  "cublasLtMatmul");
        }
        check(cudaStreamSynchronize(stream_), "run");
    }

  private:
    static constexpr size_t workspace_bytes = size_t{32} << 20;

    template <class Value>
    void set(cublasLtMatmulDescAttributes_t attribute, Value value) {
        check(library_.MatmulDescSetAttribute(product_, attribute, &value, sizeof value), "attribute");
    }

    void choose_fastest() {
        constexpr int most = 8, repeats = 12;
        cublasLtMatmulHeuristicResult_t results[most];
        int found = 0;
        check(library_.MatmulAlgoGetHeuristic(handle_, product_, w_layout_, x_layout_, y_layout_, y_layout_,
                                              preference_, most, results, &found),
              "no such product");
        double best = 0;
        cublasLtMatmulAlgo_t fastest{};
        for (int i = 0; i < found; ++i) {
            algorithm_ = results[i].algo;
            try {
                run(2);
                const auto start = std::chrono::steady_clock::now();
                run(repeats);
                const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
                if (best == 0 || seconds.count() < best) best = seconds.count(), fastest = algorithm_;
            } catch (const std::runtime_error&) {  // suggested, but not able
            }
        }
        if (best == 0) throw std::runtime_error("no algorithm");
        algorithm_ = fastest;
    }

    Library library_;
    bool integers_;
    int weights_, next_ = 0;
    size_t weight_bytes_;
    DeviceMemory w_, x_, y_, workspace_;
    cudaStream_t stream_ = nullptr;
    cublasLtHandle_t handle_ = nullptr;
    cublasLtMatmulDesc_t product_ = nullptr;
    cublasLtMatrixLayout_t w_layout_ = nullptr, x_layout_ = nullptr, y_layout_ = nullptr;
    cublasLtMatmulPreference_t preference_ = nullptr;
    cublasLtMatmulAlgo_t algorithm_{};
};

}  // namespace

std::unique_ptr<LibraryProducts> library_products(int device, LibraryNumbers numbers, LibraryResults results,
                                                  int64_t out, int64_t in, int rows, int weights, std::string* why) {
    try {
        return std::make_unique<Products>(device, numbers, results, out, in, rows, weights);
    } catch (const std::runtime_error& error) {
        *why = error.what();
        return nullptr;
    }
}

}  // namespace quant
