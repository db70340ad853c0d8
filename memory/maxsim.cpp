// MaxSim in one go (see memory/maxsim.py): no copy of what is stored, none of it as floats but a few rows at a time.
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t beside = 16;   // pieces asked that stand side by side
constexpr int64_t widest = 512;  // components of a piece

// V: so many floats as one register holds. `rows` stored pieces are compared at a time, so that no sum waits for itself.
template <typename V, int rows>
__attribute__((always_inline)) inline void compare(const int8_t *const *texts, const int64_t *lengths, int64_t count,
                                                   const float *asked, int64_t groups, int64_t width, float *best)
{
    constexpr int64_t lanes = sizeof(V) / sizeof(float), parts = beside / lanes;
    alignas(64) float floats[rows][widest];
    for (int64_t text = 0; text < count; text++) {
        float *out = best + text * groups * beside;
        for (int64_t i = 0; i < groups * beside; i++) out[i] = -3e38f;
        for (int64_t start = 0; start < lengths[text]; start += rows) {
            for (int64_t r = 0; r < rows; r++) {
                // beyond the end its first piece once more: that changes no maximum
                const int8_t *row = texts[text] + (start + r < lengths[text] ? start + r : start) * width;
                for (int64_t k = 0; k < width; k++) floats[r][k] = row[k];
            }
            for (int64_t part = 0; part < groups * parts; part++) {
                const float *column = asked + (part / parts) * width * beside + (part % parts) * lanes;
                V sums[rows] = {};
                for (int64_t k = 0; k < width; k++) {
                    V q;
                    std::memcpy(&q, column + k * beside, sizeof q);
                    for (int r = 0; r < rows; r++) sums[r] += floats[r][k] * q;
                }
                V most;
                std::memcpy(&most, out + part * lanes, sizeof most);
                for (int r = 0; r < rows; r++) most = sums[r] > most ? sums[r] : most;
                std::memcpy(out + part * lanes, &most, sizeof most);
            }
        }
    }
}

typedef float four __attribute__((vector_size(16)));

#if defined(__x86_64__)
typedef float eight __attribute__((vector_size(32)));
typedef float sixteen __attribute__((vector_size(64)));

__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma"))) void with_512_bits(
    const int8_t *const *texts, const int64_t *lengths, int64_t count, const float *asked, int64_t groups, int64_t width,
    float *best)
{
    compare<sixteen, 8>(texts, lengths, count, asked, groups, width, best);
}

__attribute__((target("avx2,fma"))) void with_256_bits(
    const int8_t *const *texts, const int64_t *lengths, int64_t count, const float *asked, int64_t groups, int64_t width,
    float *best)
{
    compare<eight, 8>(texts, lengths, count, asked, groups, width, best);
}
#endif

}  // namespace

// texts[i]: lengths[i] rows of `width` int8; asked: `groups` times (width, 16); best: (count, groups * 16)
extern "C" void memrelay_maxsim(const int8_t *const *texts, const int64_t *lengths, int64_t count, const float *asked,
                                int64_t groups, int64_t width, float *best)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return with_512_bits(texts, lengths, count, asked, groups, width, best);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return with_256_bits(texts, lengths, count, asked, groups, width, best);
#endif
    compare<four, 4>(texts, lengths, count, asked, groups, width, best);
}
