! curvd for Fortran 2008: compile this file with your program (modules are compiler-specific, so no .mod is installed)
! and link libcurvd. What each call means, its shapes and its errors are in curvd.h; functions return a status, and
! curvd_last_error has the sentence.
!
! Arrays are not copied. curvd's row-major matrix (rows, d_in) IS the Fortran array a(d_in, rows): examples are columns,
! and a weight (d_out, d_in) is w(d_in, d_out). Sections are fine as long as their first dimension has stride 1.
! The communicator is its Fortran handle: comm of the modules mpi and mpif.h, comm%MPI_VAL of mpi_f08.
! Predictions and the flight recorder (curvd_experimental.h) have no interfaces here.
module curvd
  use, intrinsic :: iso_c_binding
  implicit none
  private :: set_text, set_integer, set_long, set_real, set_logical, capture_arrays, pair, view, view_pair, &
             view_vector, distance

  ! ---- constants ----

  integer(c_int), parameter :: CURVD_VERSION_MAJOR = 0, CURVD_VERSION_MINOR = 1, CURVD_VERSION_PATCH = 0

  integer(c_int), parameter :: CURVD_OK = 0, CURVD_ERR_ARGUMENT = -1, CURVD_ERR_STATE = -2, CURVD_ERR_OPTION = -3, &
                               CURVD_ERR_MEMORY = -4, CURVD_ERR_MPI = -5, CURVD_ERR_NUMERIC = -6, &
                               CURVD_ERR_LAYOUT = -7, CURVD_ERR_IO = -8, CURVD_ERR_DATA = -9, &
                               CURVD_ERR_MISMATCH = -10, CURVD_ERR_SIZE = -11, CURVD_ERR_REMOTE = -12, &
                               CURVD_ERR_DAMAGE = -13

  integer(c_int), parameter :: CURVD_CHANNELS_LAST = 0, CURVD_CHANNELS_FIRST = 1
  integer(c_int), parameter :: CURVD_LAYER_DENSE = 0, CURVD_LAYER_NORM = 1
  integer(c_int), parameter :: CURVD_ROLE_WORKER = 0, CURVD_ROLE_CURVATURE = 1
  integer(c_int), parameter :: CURVD_F32 = 0, CURVD_F64 = 1, CURVD_ARRAY_NAME_MAX = 160
  integer(c_int), parameter :: CURVD_FLAG_COUNT = 8 ! CURVD_FLAGS in C: here the function has that name
  integer(c_int), parameter :: CURVD_PROGRESS_NONE = 0, CURVD_PROGRESS_TEST = 1, CURVD_PROGRESS_THREAD = 2

  ! Places in the arrays of curvd_metrics, counted from 0.
  integer(c_int), parameter :: CURVD_STAGE_CAPTURE = 0, CURVD_STAGE_FOLLOW = 1, CURVD_STAGE_GRADIENTS = 2, &
                               CURVD_STAGE_STATISTICS = 3, CURVD_STAGE_AVERAGE = 4, CURVD_STAGE_REFRESH = 5, &
                               CURVD_STAGE_WAIT = 6, CURVD_STAGE_BROADCAST = 7, CURVD_STAGE_MOMENTUM = 8, &
                               CURVD_STAGE_PRECONDITION = 9, CURVD_STAGE_MOVE = 10, CURVD_STAGE_IDLE = 11, &
                               CURVD_STAGES = 12
  integer(c_int), parameter :: CURVD_TRAFFIC_GRADIENTS = 0, CURVD_TRAFFIC_STATISTICS = 1, &
                               CURVD_TRAFFIC_PRECONDITIONERS = 2, CURVD_TRAFFIC_CONTROL = 3, &
                               CURVD_TRAFFIC_MOVES = 4, CURVD_TRAFFICS = 5
  integer(c_int), parameter :: CURVD_MEMORY_STATISTICS = 0, CURVD_MEMORY_FACTORS = 1, &
                               CURVD_MEMORY_PRECONDITIONERS = 2, CURVD_MEMORY_MOMENTUM = 3, &
                               CURVD_MEMORY_TRANSFER = 4, CURVD_MEMORY_WORKSPACE = 5, CURVD_MEMORIES = 6
  integer(c_int), parameter :: CURVD_EVENT_REFRESHES = 0, CURVD_EVENT_SKIPPED = 1, &
                               CURVD_EVENT_REFUSED_STATISTICS = 2, CURVD_EVENT_LOST_STATISTICS = 3, &
                               CURVD_EVENT_RETRIED = 4, CURVD_EVENT_EXACT_FALLBACK = 5, CURVD_EVENT_REPAIRED = 6, &
                               CURVD_EVENT_WIDENED = 7, &
                               CURVD_EVENT_KEPT_PREVIOUS = 8, CURVD_EVENT_CLIPPED = 9, CURVD_EVENT_MOVED = 10, &
                               CURVD_EVENT_DAMAGED = 11, CURVD_EVENTS = 12

  ! ---- structures; texts in them are C strings: curvd_text makes them Fortran's ----

  ! Made by curvd_gradient_of.
  type, bind(C) :: curvd_gradient
    type(c_ptr) :: weight = c_null_ptr
    integer(c_int64_t) :: ld = 0
    type(c_ptr) :: bias = c_null_ptr
    integer(c_int64_t) :: bias_stride = 0
    type(c_ptr) :: parameter = c_null_ptr, parameter_bias = c_null_ptr
    real(c_float) :: shrink = 0
  end type

  ! Pairs are (height, width). In Fortran channels first is a(width, height, c_in, rows), weight (kw, kh, c_in, c_out).
  type, bind(C) :: curvd_conv
    integer(c_int64_t) :: c_in = 0, c_out = 0
    integer(c_int64_t) :: in(2) = 0, kernel(2) = 0, stride(2) = 0, pad(2) = 0, dilation(2) = 0
    integer(c_int) :: layout = CURVD_CHANNELS_LAST
  end type

  type, bind(C) :: curvd_array
    type(c_ptr) :: name
    integer(c_int) :: dtype
    logical(c_bool) :: is_triangle
    integer(c_int64_t) :: n_rows, n_columns, begin, rows, row_stride, column_stride
    type(c_ptr) :: data
  end type

  ! c_funloc of functions like curvd_begin_hook, curvd_array_hook and curvd_end_hook.
  type, bind(C) :: curvd_state_hooks
    type(c_funptr) :: begin, array, end
  end type

  type, bind(C) :: curvd_metrics
    integer(c_int64_t) :: step
    real(c_double) :: stage_wall_s(0:CURVD_STAGES - 1), stage_cpu_s(0:CURVD_STAGES - 1)
    integer(c_int64_t) :: stage_calls(0:CURVD_STAGES - 1), sent_bytes(0:CURVD_TRAFFICS - 1), &
                          events(0:CURVD_EVENTS - 1), memory_bytes(0:CURVD_MEMORIES - 1)
    integer(c_int64_t) :: memory_peak_bytes, n_allocations
    real(c_double) :: clip_scale, age_mean
    integer(c_int64_t) :: age_p99, age_max, refreshes_arrived
    real(c_double) :: latency_mean_s, latency_max_s
    integer(c_int) :: progress
    real(c_double) :: overlap_measured, transfer_s, exposed_s
  end type

  type, bind(C) :: curvd_factor_metrics
    integer(c_int64_t) :: n, eig_rank, statistics_step
    real(c_double) :: trace, lambda_max, lambda_min, tau, missing_trace, error_bound, error_norm, residual, &
                      orthogonality, drift
    integer(c_int64_t) :: products
    real(c_double) :: refresh_s
    integer(c_int) :: ranks
    real(c_double) :: damping
    integer(c_int64_t) :: refused
    type(c_ptr) :: carrier, store, precision
    real(c_double) :: wire_error_statistics, wire_error_basis
  end type

  type, bind(C) :: curvd_layer_metrics
    type(c_ptr) :: name, method, reason
    integer(c_int64_t) :: d_in, d_out
    logical(c_bool) :: has_bias
    integer(c_int) :: owner
    type(c_ptr) :: apply
    real(c_double) :: share
    type(curvd_factor_metrics) :: factor(2) ! A, G
    real(c_double) :: direction_rms, owner_s
  end type

  type, bind(C) :: curvd_option_info
    type(c_ptr) :: name, type, group, unit, range, initial, help
  end type

  type pair
    type(c_ptr) :: a, g
    integer(c_int64_t) :: rows, lda, ldg
  end type

  ! ---- functions that are C's own ----

  interface
    integer(c_int) function curvd_create(comm, ctx) bind(C, name='curvd_create_f')
      import
      integer(c_int), value :: comm
      type(c_ptr), intent(out) :: ctx
    end function
    subroutine curvd_destroy(ctx) bind(C)
      import
      type(c_ptr), intent(inout) :: ctx
    end subroutine
    integer(c_int) function curvd_plan(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    integer(c_int) function curvd_role_get(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    integer(c_int) function curvd_worker_count(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    integer(c_int) function curvd_worker_index(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    logical(c_bool) function curvd_wants_capture(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    integer(c_int) function curvd_progress(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    logical(c_bool) function curvd_is_factored(ctx, layer) bind(C)
      import
      type(c_ptr), value :: ctx
      integer(c_int32_t), value :: layer
    end function
    integer(c_int) function curvd_serve(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    integer(c_int) function curvd_finish(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function

    ! The hooks' user is borrowed: c_loc of something that lives as long as the context.
    integer(c_int) function curvd_on_state(ctx, hooks, user) bind(C)
      import
      type(c_ptr), value :: ctx, user
      type(curvd_state_hooks), intent(in) :: hooks
    end function
    integer(c_int) function curvd_save(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    integer(c_int) function curvd_load(ctx, step) bind(C)
      import
      type(c_ptr), value :: ctx
      integer(c_int64_t), value :: step
    end function
    integer(c_int) function curvd_check(ctx, replica) bind(C)
      import
      type(c_ptr), value :: ctx
      integer(c_int64_t), intent(out) :: replica
    end function
    subroutine curvd_raise(ctx, flags) bind(C)
      import
      type(c_ptr), value :: ctx
      integer(c_int32_t), value :: flags
    end subroutine
    integer(c_int32_t) function curvd_flags(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    integer(c_int64_t) function curvd_array_count(array) bind(C)
      import
      type(curvd_array), intent(in) :: array
    end function
    integer(c_int64_t) function curvd_dtype_bytes(dtype) bind(C)
      import
      integer(c_int), value :: dtype
    end function
    subroutine curvd_array_pack(array, packed) bind(C)
      import
      type(curvd_array), intent(in) :: array
      type(c_ptr), value :: packed
    end subroutine
    subroutine curvd_array_unpack(array, packed) bind(C)
      import
      type(curvd_array), intent(in) :: array
      type(c_ptr), value :: packed
    end subroutine
    type(curvd_array) function curvd_array_rows(array, begin, rows) bind(C)
      import
      type(curvd_array), intent(in) :: array
      integer(c_int64_t), value :: begin, rows
    end function

    integer(c_int) function curvd_metrics_read(ctx, metrics) bind(C)
      import
      type(c_ptr), value :: ctx
      type(curvd_metrics), intent(out) :: metrics
    end function
    integer(c_int) function curvd_layer_metrics_read(ctx, layer, metrics) bind(C)
      import
      type(c_ptr), value :: ctx
      integer(c_int32_t), value :: layer
      type(curvd_layer_metrics), intent(out) :: metrics
    end function
    integer(c_int32_t) function curvd_layer_count(ctx) bind(C)
      import
      type(c_ptr), value :: ctx
    end function
    ! write: c_funloc of a subroutine like curvd_log_hook, or c_null_funptr.
    integer(c_int) function curvd_log_to(ctx, write, user, level) bind(C)
      import
      type(c_ptr), value :: ctx, user
      type(c_funptr), value :: write
      integer(c_int), value :: level
    end function
    integer(c_int) function curvd_option_count() bind(C)
      import
    end function
    integer(c_int) function curvd_option_get(index, info) bind(C)
      import
      integer(c_int), value :: index
      type(curvd_option_info), intent(out) :: info
    end function
  end interface

  ! What the hooks look like.
  abstract interface
    integer(c_int) function curvd_begin_hook(user, is_load, step) bind(C)
      import
      type(c_ptr), value :: user
      logical(c_bool), value :: is_load
      integer(c_int64_t), value :: step
    end function
    integer(c_int) function curvd_array_hook(user, is_load, array) bind(C)
      import
      type(c_ptr), value :: user
      logical(c_bool), value :: is_load
      type(curvd_array), intent(in) :: array
    end function
    integer(c_int) function curvd_end_hook(user, is_load, status) bind(C)
      import
      type(c_ptr), value :: user
      logical(c_bool), value :: is_load
      integer(c_int), value :: status
    end function
    subroutine curvd_log_hook(user, level, line) bind(C)
      import
      type(c_ptr), value :: user, line
      integer(c_int), value :: level
    end subroutine
  end interface

  ! ---- C's side of functions that take or give texts, logicals or arrays; what is behind contains calls them ----

  interface
    integer(c_int) function curvd_c_set(ctx, key, value) bind(C, name='curvd_set')
      import
      type(c_ptr), value :: ctx
      character(kind=c_char), intent(in) :: key(*), value(*)
    end function
    type(c_ptr) function curvd_c_get(ctx, key) bind(C, name='curvd_get')
      import
      type(c_ptr), value :: ctx
      character(kind=c_char), intent(in) :: key(*)
    end function
    type(c_ptr) function curvd_c_matrix_unit(ctx) bind(C, name='curvd_matrix_unit')
      import
      type(c_ptr), value :: ctx
    end function
    integer(c_int) function curvd_c_layer_add(ctx, name, d_in, d_out, has_bias, layer) bind(C, name='curvd_layer_add')
      import
      type(c_ptr), value :: ctx
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int64_t), value :: d_in, d_out
      logical(c_bool), value :: has_bias
      integer(c_int32_t), intent(inout) :: layer
    end function
    integer(c_int) function curvd_c_layer_add_norm(ctx, name, channels, layer) bind(C, name='curvd_layer_add_norm')
      import
      type(c_ptr), value :: ctx
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int64_t), value :: channels
      integer(c_int32_t), intent(inout) :: layer
    end function
    integer(c_int) function curvd_c_layer_add_conv(ctx, name, shape, has_bias, layer) &
        bind(C, name='curvd_layer_add_conv')
      import
      type(c_ptr), value :: ctx
      character(kind=c_char), intent(in) :: name(*)
      type(curvd_conv), intent(in) :: shape
      logical(c_bool), value :: has_bias
      integer(c_int32_t), intent(inout) :: layer
    end function
    integer(c_int) function curvd_c_capture(ctx, layer, rows, a, lda, g, ldg) bind(C, name='curvd_capture')
      import
      type(c_ptr), value :: ctx, a, g
      integer(c_int32_t), value :: layer
      integer(c_int64_t), value :: rows, lda, ldg
    end function
    integer(c_int) function curvd_c_capture_gradient(ctx, layer, rows, a, lda, g, ldg, scale) &
        bind(C, name='curvd_capture_gradient')
      import
      type(c_ptr), value :: ctx, a, g
      integer(c_int32_t), value :: layer
      integer(c_int64_t), value :: rows, lda, ldg
      real(c_float), value :: scale
    end function
    integer(c_int) function curvd_c_precondition(ctx, layer, rows, a, lda, g, ldg, scale, keep, to) &
        bind(C, name='curvd_precondition')
      import
      type(c_ptr), value :: ctx, a, g
      integer(c_int32_t), value :: layer
      integer(c_int64_t), value :: rows, lda, ldg
      real(c_float), value :: scale, keep
      type(curvd_gradient), intent(in) :: to
    end function
    integer(c_int) function curvd_c_step(ctx, lr, gradients, n_layers) bind(C, name='curvd_step')
      import
      type(c_ptr), value :: ctx
      real(c_double), value :: lr
      type(curvd_gradient), intent(in) :: gradients(*)
      integer(c_int32_t), value :: n_layers
    end function
    integer(c_int) function curvd_c_option_check(key, value, message, size) bind(C, name='curvd_option_check')
      import
      character(kind=c_char), intent(in) :: key(*), value(*)
      character(kind=c_char), intent(out) :: message(*)
      integer(c_size_t), value :: size
    end function
    type(c_ptr) function curvd_c_last_error(ctx) bind(C, name='curvd_last_error')
      import
      type(c_ptr), value :: ctx
    end function
    type(c_ptr) function curvd_c_status_name(code) bind(C, name='curvd_status_name')
      import
      integer(c_int), value :: code
    end function
    type(c_ptr) function curvd_c_status_text(code) bind(C, name='curvd_status_text')
      import
      integer(c_int), value :: code
    end function
    type(c_ptr) function curvd_c_stage_name(stage) bind(C, name='curvd_stage_name')
      import
      integer(c_int), value :: stage
    end function
    type(c_ptr) function curvd_c_traffic_name(traffic) bind(C, name='curvd_traffic_name')
      import
      integer(c_int), value :: traffic
    end function
    type(c_ptr) function curvd_c_memory_name(kind) bind(C, name='curvd_memory_name')
      import
      integer(c_int), value :: kind
    end function
    type(c_ptr) function curvd_c_event_name(event) bind(C, name='curvd_event_name')
      import
      integer(c_int), value :: event
    end function
    type(c_ptr) function curvd_c_version() bind(C, name='curvd_version')
      import
    end function
    type(c_ptr) function curvd_c_build_info() bind(C, name='curvd_build_info')
      import
    end function
    integer(c_size_t) function curvd_c_strlen(text) bind(C, name='strlen')
      import
      type(c_ptr), value :: text
    end function
  end interface

  ! status = curvd_set(ctx, key, value): a text, an integer, a real or a logical.
  interface curvd_set
    module procedure set_text, set_integer, set_long, set_real, set_logical
  end interface

  ! status = curvd_capture(ctx, layer, a, g), or as in C with c_loc (images; NULL by c_null_ptr).
  interface curvd_capture
    module procedure capture_arrays
    procedure curvd_c_capture
  end interface

contains

  ! ---- texts ----

  function curvd_text(text) result(out)
    type(c_ptr), intent(in) :: text ! of C; NULL: ''
    character(:), allocatable :: out
    character(kind=c_char), pointer :: letter(:)
    integer(c_size_t) :: i, n
    n = 0
    if (c_associated(text)) n = curvd_c_strlen(text)
    allocate(character(n) :: out)
    if (n == 0) return
    call c_f_pointer(text, letter, [n])
    do i = 1, n
      out(i:i) = letter(i)
    end do
  end function

  function curvd_last_error(ctx) result(out)
    type(c_ptr), intent(in) :: ctx
    character(:), allocatable :: out
    out = curvd_text(curvd_c_last_error(ctx))
  end function

  function curvd_status_name(code) result(out)
    integer(c_int), intent(in) :: code
    character(:), allocatable :: out
    out = curvd_text(curvd_c_status_name(code))
  end function

  function curvd_status_text(code) result(out)
    integer(c_int), intent(in) :: code
    character(:), allocatable :: out
    out = curvd_text(curvd_c_status_text(code))
  end function

  function curvd_stage_name(stage) result(out)
    integer(c_int), intent(in) :: stage
    character(:), allocatable :: out
    out = curvd_text(curvd_c_stage_name(stage))
  end function

  function curvd_traffic_name(traffic) result(out)
    integer(c_int), intent(in) :: traffic
    character(:), allocatable :: out
    out = curvd_text(curvd_c_traffic_name(traffic))
  end function

  function curvd_memory_name(kind) result(out)
    integer(c_int), intent(in) :: kind
    character(:), allocatable :: out
    out = curvd_text(curvd_c_memory_name(kind))
  end function

  function curvd_event_name(event) result(out)
    integer(c_int), intent(in) :: event
    character(:), allocatable :: out
    out = curvd_text(curvd_c_event_name(event))
  end function

  function curvd_version() result(out)
    character(:), allocatable :: out
    out = curvd_text(curvd_c_version())
  end function

  function curvd_build_info() result(out)
    character(:), allocatable :: out
    out = curvd_text(curvd_c_build_info())
  end function

  ! ---- options ----

  integer(c_int) function set_text(ctx, key, value) result(status)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: key, value
    status = curvd_c_set(ctx, trim(key)//c_null_char, trim(value)//c_null_char)
  end function

  integer(c_int) function set_long(ctx, key, value) result(status)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: key
    integer(c_int64_t), intent(in) :: value
    character(24) :: text
    write (text, '(i0)') value
    status = set_text(ctx, key, text)
  end function

  integer(c_int) function set_integer(ctx, key, value) result(status)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: key
    integer(c_int), intent(in) :: value
    status = set_long(ctx, key, int(value, c_int64_t))
  end function

  integer(c_int) function set_real(ctx, key, value) result(status)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: key
    real(c_double), intent(in) :: value
    character(32) :: text
    write (text, '(es24.16e3)') value
    status = set_text(ctx, key, adjustl(text))
  end function

  integer(c_int) function set_logical(ctx, key, value) result(status)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: key
    logical, intent(in) :: value
    status = set_text(ctx, key, merge('true ', 'false', value))
  end function

  ! The value in force; '' for an unknown key.
  function curvd_matrix_unit(ctx) result(out)
    type(c_ptr), intent(in) :: ctx
    character(:), allocatable :: out
    out = curvd_text(curvd_c_matrix_unit(ctx))
  end function

  function curvd_get(ctx, key) result(out)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: key
    character(:), allocatable :: out
    out = curvd_text(curvd_c_get(ctx, trim(key)//c_null_char))
  end function

  ! message: '' when curvd_set would accept it.
  integer(c_int) function curvd_option_check(key, value, message) result(status)
    character(*), intent(in) :: key, value
    character(:), allocatable, intent(out) :: message
    character(kind=c_char), target :: text(512)
    text(1) = c_null_char
    status = curvd_c_option_check(trim(key)//c_null_char, trim(value)//c_null_char, text, size(text, kind=c_size_t))
    message = ''
    if (status /= CURVD_OK) message = curvd_text(c_loc(text))
  end function

  ! ---- layers ----

  integer(c_int) function curvd_layer_add(ctx, name, d_in, d_out, has_bias, layer) result(status)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: name
    integer(c_int64_t), intent(in) :: d_in, d_out
    logical, intent(in) :: has_bias
    integer(c_int32_t), intent(inout) :: layer ! 0, 1, 2, ... in order of adding
    status = curvd_c_layer_add(ctx, trim(name)//c_null_char, d_in, d_out, logical(has_bias, c_bool), layer)
  end function

  integer(c_int) function curvd_layer_add_norm(ctx, name, channels, layer) result(status)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: name
    integer(c_int64_t), intent(in) :: channels
    integer(c_int32_t), intent(inout) :: layer
    status = curvd_c_layer_add_norm(ctx, trim(name)//c_null_char, channels, layer)
  end function

  integer(c_int) function curvd_layer_add_conv(ctx, name, shape, has_bias, layer) result(status)
    type(c_ptr), intent(in) :: ctx
    character(*), intent(in) :: name
    type(curvd_conv), intent(in) :: shape
    logical, intent(in) :: has_bias
    integer(c_int32_t), intent(inout) :: layer
    status = curvd_c_layer_add_conv(ctx, trim(name)//c_null_char, shape, logical(has_bias, c_bool), layer)
  end function

  ! ---- arrays ----

  ! From x to y, in numbers.
  integer(c_int64_t) function distance(x, y)
    real(c_float), intent(in), target :: x, y
    distance = (transfer(c_loc(y), 0_c_intptr_t) - transfer(c_loc(x), 0_c_intptr_t))/4
  end function

  ! Where a matrix lies, and the distance of its columns; ld -1, which curvd refuses, when rows of it are not adjacent.
  subroutine view(x, at, ld)
    real(c_float), intent(in), target :: x(:, :)
    type(c_ptr), intent(out) :: at
    integer(c_int64_t), intent(out) :: ld
    at = c_null_ptr
    ld = size(x, 1, c_int64_t)
    if (size(x) == 0) return
    at = c_loc(x(1, 1))
    if (size(x, 2) > 1) ld = distance(x(1, 1), x(1, 2))
    if (size(x, 1) > 1) then
      if (distance(x(1, 1), x(2, 1)) /= 1) ld = -1
    end if
  end subroutine

  ! Inputs and output gradients of the same rows; rows -1, which curvd refuses, when they have different columns.
  type(pair) function view_pair(a, g) result(p)
    real(c_float), intent(in), target :: a(:, :), g(:, :)
    call view(a, p%a, p%lda)
    call view(g, p%g, p%ldg)
    p%rows = merge(size(a, 2, c_int64_t), -1_c_int64_t, size(a, 2) == size(g, 2))
  end function

  integer(c_int) function capture_arrays(ctx, layer, a, g) result(status)
    type(c_ptr), intent(in) :: ctx
    integer(c_int32_t), intent(in) :: layer
    real(c_float), intent(in), target :: a(:, :) ! (d_in, rows): layer inputs
    real(c_float), intent(in), target :: g(:, :) ! (d_out, rows): gradients in its outputs
    type(pair) :: p
    p = view_pair(a, g)
    status = curvd_c_capture(ctx, layer, p%rows, p%a, p%lda, p%g, p%ldg)
  end function

  ! scale: of g^T [a 1] in the gradient.
  integer(c_int) function curvd_capture_gradient(ctx, layer, a, g, scale) result(status)
    type(c_ptr), intent(in) :: ctx
    integer(c_int32_t), intent(in) :: layer
    real(c_float), intent(in), target :: a(:, :), g(:, :) ! (d_in, rows), (d_out, rows)
    real(c_float), intent(in) :: scale
    type(pair) :: p
    p = view_pair(a, g)
    status = curvd_c_capture_gradient(ctx, layer, p%rows, p%a, p%lda, p%g, p%ldg, scale)
  end function

  integer(c_int) function curvd_precondition(ctx, layer, a, g, scale, keep, to) result(status)
    type(c_ptr), intent(in) :: ctx
    integer(c_int32_t), intent(in) :: layer
    real(c_float), intent(in), target :: a(:, :), g(:, :) ! (d_in, rows), (d_out, rows)
    real(c_float), intent(in) :: scale, keep
    type(curvd_gradient), intent(in) :: to
    type(pair) :: p
    p = view_pair(a, g)
    status = curvd_c_precondition(ctx, layer, p%rows, p%a, p%lda, p%g, p%ldg, scale, keep, to)
  end function

  ! The gradient of one layer: weight(d_in, d_out), bias(d_out); and W itself, if the step is to update it, laid out the
  ! same way. Nothing is copied: the arrays that are handed over need the attribute target, and must outlive its use.
  type(curvd_gradient) function curvd_gradient_of(weight, bias, parameter, parameter_bias, shrink) result(g)
    real(c_float), intent(inout), target :: weight(:, :)
    real(c_float), intent(inout), target, optional :: bias(:), parameter(:, :), parameter_bias(:)
    real(c_float), intent(in), optional :: shrink
    integer(c_int64_t) :: ld, stride
    call view(weight, g%weight, g%ld)
    if (present(bias)) then
      call view_vector(bias, g%bias, g%bias_stride)
      if (size(bias) /= size(weight, 2)) g%bias_stride = -1 ! which curvd refuses
    end if
    if (present(shrink)) g%shrink = shrink
    if (.not. present(parameter)) return
    call view(parameter, g%parameter, ld)
    if (ld /= g%ld .or. any(shape(parameter) /= shape(weight))) g%ld = -1 ! which curvd refuses
    if (.not. present(parameter_bias)) return
    call view_vector(parameter_bias, g%parameter_bias, stride)
    if (stride /= g%bias_stride .or. .not. present(bias) .or. size(parameter_bias) /= size(weight, 2)) g%bias_stride = -1
  end function

  subroutine view_vector(x, at, stride)
    real(c_float), intent(in), target :: x(:)
    type(c_ptr), intent(out) :: at
    integer(c_int64_t), intent(out) :: stride
    at = c_null_ptr
    stride = 1
    if (size(x) > 0) at = c_loc(x(1))
    if (size(x) > 1) stride = distance(x(1), x(2))
  end subroutine

  integer(c_int) function curvd_step(ctx, lr, gradients) result(status)
    type(c_ptr), intent(in) :: ctx
    real(c_double), intent(in) :: lr
    type(curvd_gradient), intent(in) :: gradients(:) ! in layer order
    status = curvd_c_step(ctx, lr, gradients, size(gradients, kind=c_int32_t))
  end function
end module curvd
