! A user's own network in Fortran by curvd.f90 and nothing else: 2-20-20-2 with tanh tells two spirals apart.
! Status 1 unless 99 % of the points are on their side.
module spirals
  use curvd
  use mpi_f08
  implicit none
  integer, parameter :: n_layers = 3, width = 20, n_points = 192, n_steps = 100

  type layer
    integer :: d_in, d_out
    real, allocatable :: w(:, :), b(:), dw(:, :), db(:) ! (d_in, d_out), (d_out)
    real, allocatable :: a(:, :), g(:, :)               ! (d_in, rows), (d_out, rows)
  end type

  ! What the service's state was made of: the names and sizes of a save, looked for in a load.
  type inventory
    integer :: n = 0
    character(CURVD_ARRAY_NAME_MAX) :: name(200)
    integer(c_int64_t) :: count(200)
  end type

contains

  subroutine check(ctx, status)
    type(c_ptr), intent(in) :: ctx
    integer(c_int), intent(in) :: status
    if (status == CURVD_OK) return
    print '(3a)', curvd_status_name(status), ': ', curvd_last_error(ctx)
    call MPI_Abort(MPI_COMM_WORLD, 1)
  end subroutine

  subroutine require(is_so, what)
    logical, intent(in) :: is_so
    character(*), intent(in) :: what
    if (is_so) return
    print '(2a)', 'not so: ', what
    call MPI_Abort(MPI_COMM_WORLD, 1)
  end subroutine

  ! Uniform in (-1, 1), the same on every rank (Park and Miller 1988).
  real function draw(state)
    integer(c_int64_t), intent(inout) :: state
    state = mod(state*16807, 2147483647_c_int64_t)
    draw = real(2*real(state, c_double)/2147483647 - 1)
  end function

  function make_layer(d_in, d_out, state) result(of)
    integer, intent(in) :: d_in, d_out
    integer(c_int64_t), intent(inout) :: state
    type(layer) :: of
    integer :: i, o
    of%d_in = d_in
    of%d_out = d_out
    allocate(of%w(d_in, d_out), of%b(d_out), of%dw(d_in, d_out), of%db(d_out))
    of%b = 0
    do o = 1, d_out
      do i = 1, d_in
        of%w(i, o) = draw(state)*sqrt(3.0/d_in)
      end do
    end do
  end function

  ! Every n-th point, from the first on: one and a half turns; the class of point i is mod(i, 2).
  subroutine take(first, n, x, label)
    integer, intent(in) :: first, n
    real, allocatable, intent(out) :: x(:, :)
    integer, allocatable, intent(out) :: label(:)
    integer :: i, r
    real(c_double) :: radius, angle
    allocate(x(2, (n_points - first + n - 1)/n), label((n_points - first + n - 1)/n))
    do r = 1, size(label)
      i = first + (r - 1)*n
      radius = (i/2 + 1)/(n_points/2d0)
      angle = 3*acos(-1d0)*(radius + mod(i, 2)/3d0)
      x(:, r) = real([radius*cos(angle), radius*sin(angle)])
      label(r) = mod(i, 2)
    end do
  end subroutine

  ! Logits of the rows in net(1)%a.
  function forward(net) result(z)
    type(layer), intent(inout) :: net(:)
    real, allocatable :: z(:, :)
    integer :: l
    do l = 1, size(net)
      z = matmul(transpose(net(l)%w), net(l)%a) + spread(net(l)%b, 2, size(net(l)%a, 2))
      if (l < size(net)) net(l + 1)%a = tanh(z)
    end do
  end function

  ! Of the mean cross-entropy of the rows.
  subroutine backward(net, label, z)
    type(layer), intent(inout) :: net(:)
    integer, intent(in) :: label(:)
    real, intent(in) :: z(:, :)
    real :: p(size(label)) ! of class 1
    integer :: l
    p = 1/(1 + exp(z(1, :) - z(2, :)))
    net(size(net))%g = transpose(reshape([label - p, p - label], [size(label), 2]))/size(label)
    do l = size(net), 2, -1
      net(l - 1)%g = matmul(net(l)%w, net(l)%g)*(1 - net(l)%a**2)
    end do
    do l = 1, size(net)
      net(l)%dw = matmul(net(l)%a, transpose(net(l)%g))
      net(l)%db = sum(net(l)%g, 2)
    end do
  end subroutine

  subroutine step(ctx, net, lr)
    type(c_ptr), intent(in) :: ctx
    type(layer), intent(inout), target :: net(:)
    real(c_double), intent(in) :: lr
    type(curvd_gradient) :: gradients(size(net))
    integer :: l
    do l = 1, size(net)
      if (curvd_wants_capture(ctx)) call check(ctx, curvd_capture(ctx, l - 1, net(l)%a, net(l)%g))
      gradients(l) = curvd_gradient_of(net(l)%dw, net(l)%db, net(l)%w, net(l)%b) ! w <- w - lr * direction
    end do
    call check(ctx, curvd_step(ctx, lr, gradients))
  end subroutine

  logical function train(ctx, net)
    type(c_ptr), intent(in) :: ctx
    type(layer), intent(inout), target :: net(:)
    real, allocatable :: z(:, :)
    integer, allocatable :: label(:)
    integer :: s, right
    do s = 0, n_steps - 1
      call take(curvd_worker_index(ctx), curvd_worker_count(ctx), net(1)%a, label)
      z = forward(net)
      call backward(net, label, z)
      call step(ctx, net, 0.05d0*(1 - real(s, c_double)/n_steps))
    end do
    call try_state(ctx)
    call check(ctx, curvd_finish(ctx))
    call take(0, 1, net(1)%a, label)
    z = forward(net)
    right = count((z(2, :) > z(1, :)) .eqv. label == 1)
    if (curvd_worker_index(ctx) == 0) print '(i0, a, i0, a)', right, ' of ', n_points, ' points are on their side'
    train = 100*right >= 99*n_points
  end function

  ! ---- the rest of the interface ----

  integer(c_int) function on_begin(user, is_load, step) bind(C)
    type(c_ptr), value :: user
    logical(c_bool), value :: is_load
    integer(c_int64_t), value :: step
    on_begin = merge(CURVD_OK, CURVD_ERR_IO, c_associated(user) .and. .not. is_load .and. step == n_steps)
  end function

  integer(c_int) function on_array(user, is_load, array) bind(C)
    type(c_ptr), value :: user
    logical(c_bool), value :: is_load
    type(curvd_array), intent(in) :: array
    type(inventory), pointer :: seen
    call c_f_pointer(user, seen)
    on_array = CURVD_ERR_SIZE
    if (seen%n == size(seen%name)) return
    seen%n = seen%n + 1
    seen%name(seen%n) = curvd_text(array%name)
    seen%count(seen%n) = curvd_array_count(array)*curvd_dtype_bytes(array%dtype)
    on_array = merge(CURVD_OK, CURVD_ERR_DATA, .not. is_load)
  end function

  integer(c_int) function on_end(user, is_load, status) bind(C)
    type(c_ptr), value :: user
    logical(c_bool), value :: is_load
    integer(c_int), value :: status
    on_end = merge(CURVD_OK, status, c_associated(user) .and. .not. is_load)
  end function

  subroutine add_hooks(ctx, seen)
    type(c_ptr), intent(in) :: ctx
    type(inventory), intent(inout), target :: seen
    type(curvd_state_hooks) :: hooks
    hooks = curvd_state_hooks(c_funloc(on_begin), c_funloc(on_array), c_funloc(on_end))
    call check(ctx, curvd_on_state(ctx, hooks, c_loc(seen)))
  end subroutine

  subroutine try_state(ctx)
    type(c_ptr), intent(in) :: ctx
    type(inventory), target :: seen
    type(curvd_metrics) :: metrics
    type(curvd_layer_metrics) :: of
    call check(ctx, curvd_metrics_read(ctx, metrics))
    call require(metrics%step == n_steps, 'metrics count the steps')
    call check(ctx, curvd_layer_metrics_read(ctx, 1, of))
    call require(curvd_text(of%name) == 'fc2' .and. of%d_in == width .and. of%d_out == width, 'layer metrics')
    call add_hooks(ctx, seen)
    call check(ctx, curvd_save(ctx))
    call require(curvd_worker_index(ctx) > 0 .or. any(seen%name(:seen%n) == 'curvature.run'), 'the state has been visited')
  end subroutine

  ! Refused: an unknown option, arrays that do not fit.
  subroutine try_errors()
    type(c_ptr) :: ctx
    character(:), allocatable :: message
    real, target :: a(4, 6), g(2, 6)
    a = 0
    g = 0
    call check(c_null_ptr, curvd_create(MPI_COMM_SELF%MPI_VAL, ctx))
    call require(curvd_set(ctx, 'dampng', 0.1d0) == CURVD_ERR_OPTION, 'an unknown option is refused')
    call require(index(curvd_last_error(ctx), "'damping'") > 0, curvd_last_error(ctx))
    call require(curvd_option_check('damping', 'x', message) == CURVD_ERR_OPTION .and. len(message) > 0, message)
    call check(ctx, curvd_set(ctx, 'damping', 0.25d0))
    call check(ctx, curvd_set(ctx, 'warm_start', .false.))
    call require(curvd_get(ctx, 'damping') == '2.5000000000000000E-001', curvd_get(ctx, 'damping'))
    call require(curvd_get(ctx, 'warm_start') == 'false', curvd_get(ctx, 'warm_start'))
    call try_arrays(ctx, a, g)
    call curvd_destroy(ctx)
    call require(.not. c_associated(ctx), 'a context that has ended is null')
  end subroutine

  subroutine try_arrays(ctx, a, g)
    type(c_ptr), intent(in) :: ctx
    real, intent(inout), target :: a(4, 6), g(2, 6)
    integer(c_int32_t) :: layer
    real, target :: wide(8, 6), w(2, 2)
    type(curvd_gradient) :: handed
    call check(ctx, curvd_layer_add(ctx, 'only', 4_c_int64_t, 2_c_int64_t, .false., layer))
    call check(ctx, curvd_plan(ctx))
    call require(layer == 0 .and. curvd_layer_count(ctx) == 1, 'layers are counted from 0')
    wide = 0
    call check(ctx, curvd_capture(ctx, layer, wide(3:6, :), g))
    call check(ctx, curvd_capture(ctx, layer, 6_c_int64_t, c_loc(a), 4_c_int64_t, c_null_ptr, 0_c_int64_t))
    call require(curvd_capture(ctx, layer, wide(1:8:2, :), g) == CURVD_ERR_ARGUMENT, 'every second row is refused')
    call require(curvd_capture(ctx, layer, a(:, :5), g) == CURVD_ERR_ARGUMENT, 'fewer columns are refused')
    w = 0
    call require(curvd_step(ctx, 0d0, [curvd_gradient_of(w)]) == CURVD_ERR_ARGUMENT, 'a small weight is refused')
    call require(curvd_step(ctx, 0d0, [curvd_gradient_of(wide(1:4, 1:2), parameter=a(:, 1:2))]) == &
                 CURVD_ERR_ARGUMENT, 'parameters with another layout are refused')
    call require(curvd_step(ctx, 0d0, [curvd_gradient_of(wide(1:4, 1:2), parameter=wide(1:3, 3:4))]) == &
                 CURVD_ERR_ARGUMENT, 'parameters of another shape are refused')
    handed = curvd_gradient_of(w, w(:1, 1))
    call require(handed%bias_stride < 1, 'a short bias has a stride that curvd refuses')
    handed = curvd_gradient_of(w, w(:, 1), w, w(:1, 2))
    call require(handed%bias_stride < 1, 'short parameters of a bias, too')
    handed = curvd_gradient_of(w, w(:, 1), w, w(:, 2))
    call require(handed%bias_stride == 1, 'whole ones are taken')
  end subroutine

  logical function run(curvature_ranks)
    integer, intent(in) :: curvature_ranks
    type(c_ptr) :: ctx
    type(layer), target :: net(n_layers)
    type(inventory), target :: seen
    integer(c_int64_t) :: state
    integer(c_int32_t) :: added
    integer :: l
    state = 1
    call check(c_null_ptr, curvd_create(MPI_COMM_WORLD%MPI_VAL, ctx))
    call check(ctx, curvd_set(ctx, 'curvature_ranks', curvature_ranks))
    call check(ctx, curvd_set(ctx, 'method', 'kfac'))
    do l = 1, n_layers
      net(l) = make_layer(merge(2, width, l == 1), merge(2, width, l == n_layers), state)
      call check(ctx, curvd_layer_add(ctx, 'fc'//achar(iachar('0') + l), int(net(l)%d_in, c_int64_t), &
                                      int(net(l)%d_out, c_int64_t), .true., added))
    end do
    call check(ctx, curvd_plan(ctx))
    run = .true.
    if (curvd_role_get(ctx) == CURVD_ROLE_WORKER) then
      run = train(ctx, net)
    else
      call add_hooks(ctx, seen)
      call check(ctx, curvd_serve(ctx))
    end if
    call curvd_destroy(ctx)
  end function
end module

program main
  use spirals
  implicit none
  logical :: is_good, are_all
  integer :: n_ranks
  call MPI_Init()
  call MPI_Comm_size(MPI_COMM_WORLD, n_ranks)
  call try_errors()
  is_good = run(0)
  if (n_ranks > 1) is_good = run(1) .and. is_good
  call MPI_Allreduce(is_good, are_all, 1, MPI_LOGICAL, MPI_LAND, MPI_COMM_WORLD)
  call MPI_Finalize()
  if (.not. are_all) error stop 1
end program
