# Another distribution, newer or older than the building machine's: everything but the compiler, Clang with lld, comes
# from -DQUANT_SYSROOT, a copy of the target's file system (/lib, /usr/lib and /usr/include, with g++'s own headers and
# libraries). -DQUANT_TRIPLE names its architecture; the default is aarch64-linux-gnu.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES QUANT_SYSROOT QUANT_TRIPLE)
if(NOT QUANT_TRIPLE)
  set(QUANT_TRIPLE aarch64-linux-gnu)
endif()
if(NOT IS_DIRECTORY "${QUANT_SYSROOT}/usr/include")
  message(FATAL_ERROR "-DQUANT_SYSROOT must be a copy of the target's file system, by its full path: there is no "
                      "\"${QUANT_SYSROOT}/usr/include\"")
endif()
set(CMAKE_SYSTEM_NAME Linux)
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR ${QUANT_TRIPLE})
set(CMAKE_C_COMPILER clang)
set(CMAKE_CXX_COMPILER clang++)
set(CMAKE_C_COMPILER_TARGET ${QUANT_TRIPLE})
set(CMAKE_CXX_COMPILER_TARGET ${QUANT_TRIPLE})
set(CMAKE_C_COMPILER_EXTERNAL_TOOLCHAIN ${QUANT_SYSROOT}/usr)
set(CMAKE_CXX_COMPILER_EXTERNAL_TOOLCHAIN ${QUANT_SYSROOT}/usr)
set(CMAKE_EXE_LINKER_FLAGS_INIT -fuse-ld=lld)
set(CMAKE_SHARED_LINKER_FLAGS_INIT -fuse-ld=lld)
set(CMAKE_SYSROOT ${QUANT_SYSROOT})
if(QUANT_TRIPLE MATCHES "^arm-.*hf$")  # Clang's default is Armv6, which has no NEON
  set(CMAKE_C_FLAGS_INIT -march=armv7-a)
  set(CMAKE_CXX_FLAGS_INIT -march=armv7-a)
endif()
include(${CMAKE_CURRENT_LIST_DIR}/target_only.cmake)
