// NVIDIA's library of products, for comparison: found at run time, if the system has it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

namespace quant {

enum class LibraryNumbers { f16, e4m3, s8 };  // of both factors
// shortest: f16, bf16 (e4m3: faster than f16) and int32; full: float32, as this library's products have them, and
// int32.
enum class LibraryResults { shortest, full };

// y[rows, out] = x[rows, in] w[out, in]^T for several w, one after the other, with random numbers.
class LibraryProducts {
  public:
    virtual ~LibraryProducts() = default;
    virtual void run(int products) = 0;  // and waits for them
};

// The fastest of the algorithms that the library suggests. Null: why there is none.
std::unique_ptr<LibraryProducts> library_products(int device, LibraryNumbers numbers, LibraryResults results,
                                                  int64_t out, int64_t in, int rows, int weights, std::string* why);

}  // namespace quant
